package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// guestSlack is how late a datagram may be in a guest, where a system call takes some
// 10 µs and a wake-up a hundred.
const guestSlack = 3 * time.Millisecond

// shapeTableInGuest is shapeTable with the netem engine, in a user-mode-linux guest, whose
// kernel has it: this program runs itself there.
func shapeTableInGuest(ctx context.Context, b *Bench, pattern string) ([]tableLine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	result, err := b.Exec(ctx, b.Umlrun, "-timeout", "40m", "--", self, insideShapes, b.Tcplab, b.Root, pattern)
	if err != nil {
		return nil, err
	}
	var lines []tableLine
	if err := json.Unmarshal([]byte(result.Stdout), &lines); err != nil {
		return nil, fmt.Errorf("read the guest's table (exit status %d: %s): %w", result.Status, lastLines(result.Stderr), err)
	}
	if result.Status != 0 {
		return lines, fmt.Errorf("the guest: %s", lastLines(result.Stderr))
	}
	return lines, nil
}

// insideGuestTable is shapeTableInGuest's part in the guest.
func insideGuestTable(ctx context.Context, tcplab, root, pattern string) error {
	dir, err := os.MkdirTemp("", "tcplab-accept-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	lines, err := shapeTable(ctx, &Bench{Root: root, Tcplab: tcplab, Dir: dir}, "netem", pattern, guestSlack)
	if printErr := json.NewEncoder(os.Stdout).Encode(lines); printErr != nil {
		return printErr
	}
	return err
}

// refused reports whether the line says that the engine refused the shape.
func (l tableLine) refused() bool { return strings.HasPrefix(l.Verdict, "refused") }
