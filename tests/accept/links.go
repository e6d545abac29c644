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
		{Name: "up, exec, link set under a running iperf3 -u, down: the change costs no packet", Run: changedLive},
		{Name: "kill -9 of the holder: nothing stands", Run: holderKilled},
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
