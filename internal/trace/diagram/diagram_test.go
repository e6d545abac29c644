package diagram

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/internal/trace"
)

var update = flag.Bool("update", false, "write the golden files")

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func ms(n float64) time.Time { return began.Add(time.Duration(n * 1e6)) }

// arrow is one that takes 10 ms; sent or received below 0 is not known.
func arrow(fromClient bool, sent, received float64, flags trace.Flags, seq int64, payload int, ack int64, notes ...string) trace.Arrow {
	a := trace.Arrow{Event: trace.Event{
		Segment:    trace.Segment{Flags: flags, Payload: payload, Ack: 100},
		FromClient: fromClient, Seq: seq, Ack: ack, NewAck: payload > 0 && ack > 1, Notes: notes,
	}}
	if sent >= 0 {
		a.Sent = ms(sent)
	}
	if received >= 0 {
		a.Received = ms(received)
	}
	return a
}

// exchange has one of everything.
func exchange() trace.Exchange {
	const syn, ack, fin, psh = trace.SYN, trace.ACK, trace.FIN, trace.PSH
	opening := arrow(true, 0, 10, syn, 0, 0, 0)
	opening.Options.MSS = 1460
	lost := arrow(true, 21, -1, psh|ack, 101, 1400, 1)
	lost.Lost = true
	lostBack := arrow(false, 41, -1, psh|ack, 1, 500, 101)
	lostBack.Lost = true
	selective := arrow(false, 31, 41, ack, 1, 0, 101, "duplicate ACK")
	selective.Options.SACK = []trace.Range{{Start: 1500, End: 1600}, {Start: 1700, End: 1800}}
	return trace.Exchange{
		Client: netip.MustParseAddrPort("10.64.0.1:40000"), Server: netip.MustParseAddrPort("10.64.0.2:80"), Begin: began,
		Arrows: []trace.Arrow{
			opening,
			arrow(false, 10, 20, syn|ack, 0, 0, 1),
			arrow(true, 20, 30, ack, 1, 0, 1),
			arrow(true, 20, 30, psh|ack, 1, 100, 1),
			lost, selective, lostBack,
			arrow(true, 263, 273, psh|ack, 101, 1400, 1, "sent again, timeout"),
			arrow(true, 264, -1, ack, 1501, 0, 1),
			arrow(false, -1, 290, fin|ack, 501, 0, 1501),
			arrow(true, 300, 310, trace.RST, 1501, 0, 0),
		},
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestText(t *testing.T) {
	named := Options{Client: "client", Server: "server"}
	golden(t, "whole.txt", Text(exchange(), named))
	golden(t, "part.txt", Text(exchange(), Options{Width: 80, After: 20 * time.Millisecond, Most: 4}))
	for line := range strings.Lines(Text(exchange(), named)) {
		if strings.TrimRight(line, " \n")+"\n" != line {
			t.Errorf("%q ends in spaces", line)
		}
	}
	// Nothing is cut, however narrow the terminal.
	if narrow := Text(exchange(), Options{Width: 10}); !strings.Contains(narrow, "SACK 1501–1600 and 1 more") || !strings.Contains(narrow, "sent again, timeout") {
		t.Errorf("in a narrow terminal:\n%s", narrow)
	}
	if empty := Text(trace.Exchange{}, named); !strings.Contains(empty, "client") {
		t.Errorf("of nothing:\n%s", empty)
	}
}

func TestSVG(t *testing.T) {
	for name, x := range map[string]trace.Exchange{"whole.svg": exchange(), "": {}} {
		picture := SVG(x, Options{Client: "client <&>", Server: "server", Most: 10})
		decoder := xml.NewDecoder(strings.NewReader(picture))
		for {
			_, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("the picture is no XML: %v", err)
			}
		}
		if strings.Contains(picture, "NaN") || strings.Contains(picture, "Inf") {
			t.Errorf("the picture has places that are none:\n%s", picture)
		}
		if name != "" {
			golden(t, name, picture)
		}
	}
}

// Later is further down, always; an arrow never leads up.
func TestTimeRunsDown(t *testing.T) {
	x := exchange()
	p := layout(Options{}.cut(x))
	for i := 1; i < len(p.y); i++ {
		if p.times[i].Before(p.times[i-1]) || p.y[i] < p.y[i-1] {
			t.Errorf("moment %d is at %v, above the one before at %v", i, p.y[i], p.y[i-1])
		}
	}
	for i := range x.Arrows {
		if a := &x.Arrows[i]; !a.Sent.IsZero() && !a.Received.IsZero() {
			if start, end := p.of(a.Sent), p.of(a.Received); end <= start {
				t.Errorf("arrow %d leads from %v to %v", i, start, end)
			}
		}
	}
	if len(p.breaks) != 1 {
		t.Errorf("%d pauses are marked, want the one before the timeout", len(p.breaks))
	}
}
