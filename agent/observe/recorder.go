package observe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sync"
	"unsafe"
)

// Recorder keeps records of a kind while a trial runs, as they are in memory: that is cheap, and leaves the
// machine to the trial. What it is told it writes to a scratch file, from a goroutine of its own, and reads it
// back when the trial is over. Records have no pointers.
type Recorder[T any] struct {
	scratch Scratch
	full    chan []T      // on their way to the file
	spare   chan []T      // empty ones
	written chan struct{} // closed when no more will be
	failed  error         // why a chunk could not be written, once written is closed

	mu     sync.Mutex // guards what is below
	chunk  []T        // being filled
	count  uint64
	lost   uint64
	closed bool
}

// Scratch is a file of which nothing is left once it is closed.
type Scratch interface {
	io.Writer
	io.ReaderAt
	io.Closer
}

var _ Scratch = (*os.File)(nil)

const (
	// recordChunk is how many records are written at a time.
	recordChunk = 1024
	// readyChunks are there from the start, in memory that has been touched: to make one takes a ms, which the thread
	// that samples does not have.
	readyChunks = 4
	// recordChunks is how many chunks wait for a slow disk at most; what comes beyond is lost, and counted.
	recordChunks = 64
)

// NewRecorder keeps records in the scratch file, which it closes.
func NewRecorder[T any](scratch Scratch) *Recorder[T] {
	if t := reflect.TypeFor[T](); !plain(t) {
		panic(fmt.Sprintf("observe: records of %s have pointers", t))
	}
	r := &Recorder[T]{
		scratch: scratch,
		full:    make(chan []T, recordChunks),
		spare:   make(chan []T, recordChunks),
		written: make(chan struct{}),
		chunk:   make([]T, 0, recordChunk),
	}
	for range readyChunks {
		chunk := make([]T, recordChunk)
		clear(chunk)
		r.spare <- chunk[:0]
	}
	go r.write()
	return r
}

// plain reports whether values of a type are all in their own bytes.
func plain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		for field := range t.Fields() {
			if !plain(field.Type) {
				return false
			}
		}
		return true
	case reflect.Array:
		return plain(t.Elem())
	}
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128
}

// bytesOf are the records' own bytes.
func bytesOf[T any](records []T) []byte {
	if len(records) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&records[0])), len(records)*int(unsafe.Sizeof(records[0])))
}

// write writes chunks until Finish closes the channel. After an error it only takes them.
func (r *Recorder[T]) write() {
	defer close(r.written)
	for chunk := range r.full {
		if r.failed == nil {
			_, r.failed = r.scratch.Write(bytesOf(chunk))
		}
		select {
		case r.spare <- chunk[:0]:
		default:
		}
	}
}

// Add keeps a record. It never waits for the disk; after Finish it does nothing.
func (r *Recorder[T]) Add(record *T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if len(r.chunk) == cap(r.chunk) && !r.hand() {
		r.lost++
		return
	}
	r.chunk = append(r.chunk, *record)
	r.count++
}

// hand gives the chunk that is full to be written and takes another, and reports whether it could.
func (r *Recorder[T]) hand() bool {
	select {
	case r.full <- r.chunk:
	default:
		return false
	}
	select {
	case r.chunk = <-r.spare:
	default:
		r.chunk = make([]T, 0, recordChunk)
	}
	return true
}

// Finish ends keeping, and calls each with all records in their order, some at a time. Its error is that of
// the disk, of each, or that records were lost. The scratch file is closed. It is called once.
func (r *Recorder[T]) Finish(each func([]T) error) (err error) {
	r.mu.Lock()
	r.closed = true
	rest, count, lost := r.chunk, r.count, r.lost
	r.mu.Unlock()
	close(r.full)
	defer func() { err = errors.Join(err, r.scratch.Close()) }()
	if <-r.written; r.failed != nil {
		return fmt.Errorf("keep samples: %w", r.failed)
	}
	records := make([]T, recordChunk)
	for at := uint64(0); at+uint64(len(rest)) < count; {
		records = records[:min(recordChunk, count-uint64(len(rest))-at)]
		if _, err := r.scratch.ReadAt(bytesOf(records), int64(at)*int64(unsafe.Sizeof(records[0]))); err != nil {
			return fmt.Errorf("read back samples: %w", err)
		}
		if err := each(records); err != nil {
			return err
		}
		at += uint64(len(records))
	}
	if len(rest) > 0 {
		if err := each(rest); err != nil {
			return err
		}
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d samples were lost: the spool's disk was too slow for them; sample less often", lost, count+lost)
	}
	return nil
}

// Discard ends keeping, and all that was kept is gone.
func (r *Recorder[T]) Discard() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	close(r.full)
	<-r.written
	return r.scratch.Close()
}
