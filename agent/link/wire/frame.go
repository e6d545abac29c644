package wire

// frame is one frame on its way through a direction.
type frame struct {
	next   *frame // in the list that holds it
	home   *chunk // where its bytes are
	data   []byte // as the port gave it, with the port's header in front
	size   int    // bytes on the wire, Ethernet header included: what rates and limits count
	leaves int64  // when it leaves the stage it is in, in ns of the loop's clock; of what waits, when it came
	unseen int64  // ns that it waited in its port before it was read, as estimated
}

// list holds frames in order of arrival.
type list struct {
	head, tail *frame
	frames     int
	bytes      int // sum of sizes
}

func (l *list) push(f *frame) {
	f.next = nil
	if l.tail == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
	l.frames++
	l.bytes += f.size
}

// pop removes the oldest frame, or returns nil.
func (l *list) pop() *frame {
	f := l.head
	if f == nil {
		return nil
	}
	l.head = f.next
	if l.head == nil {
		l.tail = nil
	}
	f.next = nil
	l.frames--
	l.bytes -= f.size
	return f
}

// take moves all frames of another list behind those of this one.
func (l *list) take(other *list) {
	if other.head == nil {
		return
	}
	if l.tail == nil {
		l.head = other.head
	} else {
		l.tail.next = other.head
	}
	l.tail = other.tail
	l.frames += other.frames
	l.bytes += other.bytes
	*other = list{}
}
