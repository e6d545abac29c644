package wire

import (
	"runtime"
	"sync"
	"testing"
)

// Between two goroutines each frame goes over once, in order, and comes back once.
func TestHandoverLosesNothing(t *testing.T) {
	const frames = 100_000
	var h handover
	woken := make(chan struct{}, 1)
	var both sync.WaitGroup
	both.Go(func() { // reads
		var read, done list
		var failed uint64
		for sent, returned := 0, 0; returned < frames; runtime.Gosched() {
			for range min(sent%7+1, frames-sent) {
				read.push(&frame{size: sent})
				sent++
			}
			if sent%100 == 0 && sent < frames {
				failed++
			}
			if _, wake := h.pass(&read, &done, &failed); wake {
				woken <- struct{}{}
			}
			for f := done.pop(); f != nil; f = done.pop() {
				returned++
			}
		}
	})
	both.Go(func() { // writes
		var arrived, done list
		var failed uint64
		for next := 0; next < frames || done.head != nil; runtime.Gosched() {
			h.collect(&arrived, &done, &failed)
			for f := arrived.pop(); f != nil; f = arrived.pop() {
				if f.size != next {
					t.Errorf("frame %d came instead of %d", f.size, next)
				}
				next++
				done.push(f)
			}
			if next < frames && done.head == nil && h.rest() {
				<-woken
			}
		}
		if failed == 0 {
			t.Error("what the reader could not take was not passed on")
		}
	})
	both.Wait()
}

func TestHandoverWhoseLockIsTaken(t *testing.T) {
	var h handover
	var read, none list
	var failed uint64
	read.push(&frame{})
	h.mu.Lock()
	if passed, _ := h.pass(&read, &none, &failed); passed || read.frames != 1 {
		t.Errorf("passed %v, %d frames kept; want false, 1", passed, read.frames)
	}
	if h.collect(&none, &none, &failed) || h.rest() {
		t.Error("collects or rests while the reader is at it")
	}
	h.mu.Unlock()
	if passed, wake := h.pass(&read, &none, &failed); !passed || wake || h.rest() {
		t.Errorf("passed %v, woke %v one that is awake, or let it sleep", passed, wake)
	}
}

// A reader whose writer has gone gets its frames back, and goes on.
func TestHandoverWithoutAWriter(t *testing.T) {
	var h handover
	var read, back list
	var failed uint64
	for range 2 {
		read.push(&frame{})
		h.pass(&read, &back, &failed)
		h.end()
	}
	h.pass(&read, &back, &failed)
	if back.frames != 2 || read.frames != 0 || h.arrived.frames != 0 {
		t.Errorf("%d of 2 frames came back, %d and %d are left", back.frames, read.frames, h.arrived.frames)
	}
}
