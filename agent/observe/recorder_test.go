package observe

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// full is a disk without room; stuck is one that takes nothing until it is let go.
type (
	full  struct{}
	stuck chan struct{}
)

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error)         { return 0, errFull }
func (full) ReadAt([]byte, int64) (int, error) { return 0, errFull }
func (full) Close() error                      { return nil }

func (s stuck) Write(p []byte) (int, error)           { <-s; return len(p), nil }
func (s stuck) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (s stuck) Close() error                          { return nil }

func TestRecordsThatCannotBeKept(t *testing.T) {
	defer goleak.VerifyNone(t)
	r := NewRecorder[int](full{})
	for i := range 3 * recordChunk {
		r.Add(&i)
	}
	if err := r.Finish(func([]int) error { return nil }); !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
}

// A disk that takes nothing holds nobody up: what is beyond memory is lost, and said to be.
func TestSlowDisk(t *testing.T) {
	defer goleak.VerifyNone(t)
	disk := make(stuck)
	r := NewRecorder[int](disk)
	const many = (recordChunks + 10) * recordChunk
	for i := range many {
		r.Add(&i)
	}
	close(disk)
	kept := 0
	err := r.Finish(func(records []int) error { kept += len(records); return nil })
	if err == nil || !strings.Contains(err.Error(), "were lost") {
		t.Errorf("error %v", err)
	}
	if kept >= many || kept < recordChunks*recordChunk {
		t.Errorf("%d of %d were kept", kept, many)
	}
}

func TestDiscard(t *testing.T) {
	defer goleak.VerifyNone(t)
	r := NewRecorder[int](full{})
	n := 1
	r.Add(&n)
	if err := r.Discard(); err != nil {
		t.Error(err)
	}
	r.Add(&n)
}

func TestRecordsWithPointersAreRefused(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("kept")
		}
	}()
	NewRecorder[struct{ name string }](full{})
}
