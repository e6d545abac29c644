package uml

import (
	"io"
	"sync"
)

// tailSize is how much of the kernel's log is kept for an error, in bytes: some
// dozen lines, a panic with its trace among them.
const tailSize = 6 << 10

// Tail keeps the end of what is written to it. It is safe for concurrent use.
type Tail struct {
	also io.Writer // gets everything, unless nil

	mu   sync.Mutex
	kept []byte
}

// Write never fails: a log that cannot be passed on must not stop the guest.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.also != nil {
		if _, err := t.also.Write(p); err != nil {
			t.also = nil
		}
	}
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailSize; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

// String is the end of what was written.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
