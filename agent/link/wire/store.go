package wire

// Frames are stored in chunks, one behind the other as they are long: an
// acknowledgement takes the room of an acknowledgement, a super-packet that
// of one. Frames leave nearly in the order in which they came, so a chunk is
// soon whole again, and a direction in steady state allocates nothing.
const (
	chunkFrames = 256      // frames of a chunk, at most
	chunkBytes  = 64 << 10 // bytes of a chunk, at least
	cacheLine   = 64       // frames start on one
	// Chunks kept beside as many as are in use: 10 MB, or 36 MB of super-packets. By
	// so much the frames under way vary as a bulk flow stalls and goes on. To
	// allocate those anew each time had the garbage collector run five times a second.
	spareChunks  = 128
	largestFrame = 64<<10 + 512 // IPv6 super-packet with its headers
)

// chunk is memory for some frames that arrived one after another.
type chunk struct {
	bytes  []byte
	used   int // of bytes
	frames [chunkFrames]frame
	count  int  // of frames handed out
	live   int  // of those, not yet released
	copies bool // of the direction that duplicates, not of the reading loop
}

// store is the memory of one direction. It grows with the frames under way and
// shrinks when they have left.
type store struct {
	room  int    // bytes that the next frame may have
	open  *chunk // where it goes
	spare []*chunk
	inUse int // chunks beside open that hold frames
}

func newStore(room int) *store {
	return &store{room: room, open: newChunk(room)}
}

func newChunk(room int) *chunk {
	return &chunk{bytes: make([]byte, max(chunkBytes, 4*room))}
}

// reserve is room for one frame. It stays the same room until commit.
func (s *store) reserve() []byte {
	c := s.open
	if c.count == chunkFrames || len(c.bytes)-c.used < s.room {
		s.inUse++
		c = s.take()
		s.open = c
	}
	return c.bytes[c.used : c.used+s.room]
}

// take is an empty chunk.
func (s *store) take() *chunk {
	if last := len(s.spare) - 1; last >= 0 {
		c := s.spare[last]
		s.spare[last] = nil
		s.spare = s.spare[:last]
		return c
	}
	return newChunk(s.room)
}

// commit makes the first n bytes of the reserved room a frame.
func (s *store) commit(n int) *frame {
	c := s.open
	f := &c.frames[c.count]
	*f = frame{home: c, data: c.bytes[c.used : c.used+n : c.used+n]}
	c.count++
	c.live++
	c.used = min(len(c.bytes), c.used+(n+cacheLine-1)&^(cacheLine-1))
	return f
}

// release gives back the room of a frame that is not needed any more.
func (s *store) release(f *frame) {
	c := f.home
	c.live--
	if c.live > 0 {
		return
	}
	c.used, c.count = 0, 0
	if c == s.open {
		return
	}
	s.inUse--
	s.spare = append(s.spare, c)
	// A burst that has passed gives its memory back as it drains.
	for len(s.spare) > s.inUse+spareChunks {
		last := len(s.spare) - 1
		s.spare[last] = nil
		s.spare = s.spare[:last]
	}
}
