package wire

// copies is the memory of duplicates, which the reading loop's store knows nothing of. It
// sorts the frames that are done with: those go back here, others to their store.
type copies struct {
	room    int // bytes of the longest frame
	store   *store
	discard func(*frame)
}

// of is a copy of the frame, as it is now.
func (c *copies) of(f *frame) *frame {
	if c.store == nil {
		c.store = newStore(c.room)
	}
	twin := c.store.commit(copy(c.store.reserve(), f.data))
	twin.size = f.size
	twin.home.copies = true
	return twin
}

// takes takes back a copy that is not needed any more, and is false for other frames.
func (c *copies) takes(f *frame) bool { return c.store != nil && c.take(f) }

func (c *copies) take(f *frame) bool {
	if f.home.copies {
		c.store.release(f)
		return true
	}
	return false
}

// release takes back any frame that is not needed any more.
func (c *copies) release(f *frame) {
	if !c.takes(f) {
		c.discard(f)
	}
}
