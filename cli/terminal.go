package cli

import (
	"io"
	"sync"
)

// wipe takes the cursor to the line's start and empties the line.
const wipe = "\r\x1b[K"

// terminal is standard error: lines one after another, and below them at most one
// that is painted again and again. Its methods are safe for concurrent use.
type terminal struct {
	w io.Writer

	mu   sync.Mutex
	line string // painted now
}

// Write writes whole lines above the painted one, which stays.
func (t *terminal) Write(lines []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.line == "" {
		return t.w.Write(lines)
	}
	// In one piece, so that nothing is seen in between.
	if _, err := t.w.Write([]byte(wipe + string(lines) + t.line)); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// paint replaces the painted line; an empty one is none. The line must fit the
// terminal's width, for one that wraps could not be replaced.
func (t *terminal) paint(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var text string
	switch line {
	case t.line:
		return
	case "":
		text = wipe
	default:
		// What stands is written over and only the rest wiped, which does not flicker.
		text = "\r" + line + "\x1b[K"
	}
	t.line = line
	_, _ = io.WriteString(t.w, text) // nothing is done about a failure
}
