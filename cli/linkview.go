package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// What takes a terminal to a second screen and back, to its top, and wipes a line's or the
// screen's rest (ECMA-48, xterm).
const (
	otherScreen = "\x1b[?1049h\x1b[?25l"
	firstScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	wipeLine    = "\x1b[K"
	wipeBelow   = "\x1b[J"
)

// linkView shows links once, or again and again: on a terminal in one place, and what was seen
// last stays when it is closed.
type linkView struct {
	out    io.Writer
	json   bool
	lines  bool // of JSON
	redraw bool
	begun  bool
	last   string
	before *tcplabv1.WatchLinksResponse
}

func (a *app) newLinkView(f *linkShowFlags) *linkView {
	v := &linkView{out: a.Out, json: f.output == formatJSON, lines: f.watch}
	if out, ok := a.Out.(*os.File); ok && f.watch && !v.json {
		v.redraw = term.IsTerminal(int(out.Fd()))
	}
	return v
}

// close gives the terminal back.
func (v *linkView) close() {
	if v.redraw && v.begun {
		_, _ = io.WriteString(v.out, firstScreen+v.last)
	}
}

func (v *linkView) print(now *tcplabv1.WatchLinksResponse) error {
	if v.json {
		return v.printJSON(now)
	}
	var b strings.Builder
	if err := linkTable(&b, v.before, now); err != nil {
		return err
	}
	v.before, v.last = now, b.String()
	text := v.last
	switch {
	case v.redraw:
		text = toTop + strings.ReplaceAll(text, "\n", wipeLine+"\n") + wipeBelow
		if !v.begun {
			text = otherScreen + text
		}
	case v.begun:
		text = "\n" + text
	}
	v.begun = true
	_, err := io.WriteString(v.out, text)
	return err
}

// printJSON prints one look: indented, or as one line of several.
func (v *linkView) printJSON(now *tcplabv1.WatchLinksResponse) error {
	if !v.lines {
		return printMessage(v.out, &tcplabv1.ListLinksResponse{Links: now.GetLinks()})
	}
	content, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(now)
	if err != nil {
		return fmt.Errorf("encode the links: %w", err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, content); err != nil { // protojson varies its spacing
		return fmt.Errorf("encode the links: %w", err)
	}
	line.WriteByte('\n')
	_, err = line.WriteTo(v.out)
	return err
}

// linkTable prints links, and how fast their counters rise since the look before, where there was
// one.
func linkTable(w io.Writer, before, now *tcplabv1.WatchLinksResponse) error {
	marked := false
	for _, l := range now.GetLinks() {
		for _, r := range l.GetReports() {
			marked = marked || r.GetCounters().GetMarked() > 0
		}
	}
	header := []string{"LINK", "ENGINE", "ASKED FOR", "IN FORCE", "SENT", "DROPPED", "QUEUE"}
	if marked {
		header = append(header, "MARKED")
	}
	elapsed := now.GetTime().AsTime().Sub(before.GetTime().AsTime()).Seconds()
	if before != nil {
		header = append(header, "SENT/S")
	}
	var rows [][]string
	var notes []string
	for i, l := range now.GetLinks() {
		for j, r := range l.GetReports() {
			c := r.GetCounters()
			force := "that"
			for _, d := range r.GetDrift() {
				force = "NOT THAT"
				notes = append(notes, fmt.Sprintf("%s %s: %s", l.GetName(), arrow(r), d))
			}
			row := []string{
				l.GetName() + " " + arrow(r), engineWord(r.GetEngine()), shapeText(r.GetSpec()), force,
				strconv.FormatUint(c.GetReceived(), 10), dropped(c), queueText(c),
			}
			if r.GetCounters() == nil { // a path, which is counted with its direction
				row[4], row[5], row[6] = "", "", ""
			}
			if marked {
				row = append(row, strconv.FormatUint(c.GetMarked(), 10))
			}
			if before != nil {
				row = append(row, rise(before, i, j, c, elapsed))
			}
			rows = append(rows, row)
		}
	}
	if err := printTable(w, header, rows); err != nil {
		return err
	}
	for _, note := range notes {
		if _, err := fmt.Fprintln(w, note); err != nil {
			return err
		}
	}
	return nil
}

// dropped says how many frames were dropped, by cause.
func dropped(c *tcplabv1.LinkCounters) string {
	var causes []string
	sum := uint64(0)
	for _, cause := range []struct {
		count uint64
		name  string
	}{{c.GetLost(), "lost"}, {c.GetOverflow(), "queue full"}, {c.GetEarly(), "early"}, {c.GetFailed(), "FAILED"}} {
		if cause.count > 0 {
			sum += cause.count
			causes = append(causes, fmt.Sprintf("%s %d", cause.name, cause.count))
		}
	}
	if sum == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", sum, strings.Join(causes, ", "))
}

// queueText says how many frames wait, and how many ever did where that is known.
func queueText(c *tcplabv1.LinkCounters) string {
	text := strconv.Itoa(int(c.GetQueued()))
	if c.GetPeakQueue() > 0 {
		text += fmt.Sprintf(" (peak %d)", c.GetPeakQueue())
	}
	return text
}

// rise is how many frames a second came in since the look before.
func rise(before *tcplabv1.WatchLinksResponse, link, report int, c *tcplabv1.LinkCounters, elapsed float64) string {
	if link >= len(before.GetLinks()) || report >= len(before.GetLinks()[link].GetReports()) || c == nil || elapsed <= 0 {
		return ""
	}
	was := before.GetLinks()[link].GetReports()[report].GetCounters().GetReceived()
	return quantity(float64(c.GetReceived()-min(was, c.GetReceived()))/elapsed, "")
}
