package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// links is topologies and links that do what they say.
func links() Area {
	return Area{Name: "links", Checks: []Check{
		{
			Name: "every impairment holds natively with wire over IPv4 and IPv6, and not without it", Limit: 30 * time.Minute,
			Run: func(ctx context.Context, b *Bench) (string, error) {
				lines, err := shapeTable(ctx, b, "wire", b.Rows, 2*time.Millisecond)
				return tableFigure(lines), tableVerdict(b, "wire", lines, err)
			},
		},
		{
			Name: "every impairment holds in user-mode-linux with netem over IPv4 and IPv6, and not without it", Limit: 40 * time.Minute,
			Run: func(ctx context.Context, b *Bench) (string, error) {
				lines, err := shapeTableInGuest(ctx, b, b.Rows)
				return tableFigure(lines), tableVerdict(b, "netem", lines, err)
			},
		},
		{Name: "kill -9 of the agent at each step of a host interface's change: traffic flows as before, nothing of the owner's is touched", Limit: 20 * time.Minute, Run: hostKilled},
		{Name: "up, exec, link set under a running iperf3 -u, down: the change costs no packet", Run: changedLive},
		{Name: "kill -9 of the holder: nothing stands", Run: holderKilled},
		{Name: "fuzzed shapes reach the kernel as they were asked, or not at all", Run: fuzzedShapes},
	}}
}

// tableFigure is the sum of a table.
func tableFigure(lines []tableLine) string {
	passed, refused := 0, 0
	for _, l := range lines {
		if l.Passed && l.refused() {
			refused++
		} else if l.Passed {
			passed++
		}
	}
	return fmt.Sprintf("%d of %d lines hold, %d shapes refused with their reason", passed+refused, len(lines), refused)
}

// tableVerdict writes the table beside the programs, as Markdown, and says what in it is wrong.
func tableVerdict(b *Bench, engine string, lines []tableLine, err error) error {
	var text, wrong strings.Builder
	text.WriteString("| engine | impairment | over | asked | read back | measured | verdict |\n|---|---|---|---|---|---|---|\n")
	for _, l := range lines {
		fmt.Fprintf(&text, "| %s | %s | %s | `%s` | `%s` | %s | %s |\n", l.Engine, l.Impairment, l.Version, l.Asked, l.ReadBack, l.Measured, l.Verdict)
		if !l.Passed {
			fmt.Fprintf(&wrong, "%s over %s: %s, measured %s; ", l.Impairment, l.Version, l.Verdict, l.Measured)
		}
	}
	if writeErr := os.WriteFile(filepath.Join(b.Root, "bin", "links-"+engine+".md"), []byte(text.String()), 0o644); writeErr != nil {
		return writeErr
	}
	if err == nil && wrong.Len() > 0 {
		err = fmt.Errorf("%s", wrong.String())
	}
	if err == nil && len(lines) == 0 {
		err = fmt.Errorf("nothing was measured")
	}
	return err
}

// tested runs tests of a package by name, where and how args say, and counts the cases that passed. One
// that was skipped has shown nothing.
func (b *Bench) tested(ctx context.Context, args ...string) (passed int, err error) {
	result, err := b.Exec(ctx, "go", append([]string{"test", "-v", "-count=1"}, args...)...)
	if err != nil {
		return 0, err
	}
	passed = strings.Count(result.Stdout, "--- PASS: ")
	switch skipped := strings.Count(result.Stdout, "--- SKIP: "); {
	case result.Status != 0:
		return passed, fmt.Errorf("go test %s: %s", strings.Join(args, " "), lastLines(result.Stdout+result.Stderr))
	case passed == 0 || skipped > 0:
		return passed, fmt.Errorf("go test %s: %d cases passed, %d skipped", strings.Join(args, " "), passed, skipped)
	}
	return passed, nil
}

// inGuest has go test run its tests in a user-mode-linux guest.
func (b *Bench) inGuest(args ...string) []string {
	return append([]string{"-exec", b.Umlrun + " -timeout 6m --", "-timeout", "5m"}, args...)
}

// hostKilled kills an agent at each step of a change of a host's own interface: with
// wire by TCX and by clsact here, and with netem by clsact in a guest, whose kernel has no TCX.
func hostKilled(ctx context.Context, b *Bench) (string, error) {
	native, err := b.tested(ctx, "-run", "^TestKilledAtEachStep$/^wire", "./agent/link/nic")
	if err != nil {
		return "", err
	}
	guest, err := b.tested(ctx, b.inGuest("-run", "^TestKilledAtEachStep$/clsact$", "./agent/link/nic")...)
	return fmt.Sprintf("%d cases here, %d in the guest", native, guest), err
}

// fuzzedShapes fuzzes what becomes of a shape on its way to the kernel, and holds random shapes
// against what a kernel with all qdiscs reads back.
func fuzzedShapes(ctx context.Context, b *Bench) (string, error) {
	if _, err := b.tested(ctx, "-run", "^$", "-fuzz", "^FuzzShapes$", "-fuzztime", "30s", "./agent/link/netem"); err != nil {
		return "", err
	}
	guest, err := b.tested(ctx, b.inGuest("-run", "^TestShapesSurviveTheKernel$", "./agent/link/netem")...)
	return fmt.Sprintf("30 s of fuzzing, %d cases in the guest", guest), err
}
