package wire

import "sync"

// handover is where a lane passes from the loop that reads to the loop that
// writes: frames go over, and those that are done with come back to the store
// that they are from.
//
// The loops only ever try its lock. One that finds it taken comes again in its
// next turn, a few µs later; to wait would put its thread to sleep.
type handover struct {
	mu      sync.Mutex
	arrived list   // in order, with the time of arrival in leaves
	done    list   // in any order
	failed  uint64 // frames that the reader could not take, since the writer asked
	asleep  bool   // the writer sleeps until it is called
	ended   bool   // nobody will take anything any more
}

// pass gives frames to the writer, and takes back those that are done with. It says
// whether it could, and whether the writer is to be woken.
func (h *handover) pass(read, done *list, failed *uint64) (passed, wake bool) {
	if !h.mu.TryLock() {
		return false, false
	}
	defer h.mu.Unlock()
	done.take(&h.done)
	if h.ended {
		done.take(read)
		return true, false
	}
	h.failed += *failed
	*failed = 0
	if read.head == nil {
		return true, false
	}
	h.arrived.take(read)
	wake = h.asleep
	h.asleep = false
	return true, wake
}

// collect takes what has arrived, in exchange for what is done with. It says
// whether it could.
func (h *handover) collect(arrived, done *list, failed *uint64) bool {
	if !h.mu.TryLock() {
		return false
	}
	defer h.mu.Unlock()
	h.exchange(arrived, done, failed)
	return true
}

func (h *handover) exchange(arrived, done *list, failed *uint64) {
	h.asleep = false
	arrived.take(&h.arrived)
	h.done.take(done)
	*failed += h.failed
	h.failed = 0
}

// rest says that the writer is about to sleep, and wants to be called when a frame
// arrives. It is false if the writer must not: something may be there.
func (h *handover) rest() bool {
	if !h.mu.TryLock() {
		return false
	}
	defer h.mu.Unlock()
	h.asleep = h.arrived.head == nil
	return h.asleep
}

// end says that the writer is gone.
func (h *handover) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done.take(&h.arrived)
	h.ended = true
}
