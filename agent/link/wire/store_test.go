package wire

import (
	"bytes"
	"testing"
)

// put stores a frame of n bytes, all of one value.
func put(s *store, n int, value byte) *frame {
	buf := s.reserve()
	for i := range n {
		buf[i] = value
	}
	f := s.commit(n)
	f.size = n
	return f
}

func TestStoreKeepsFramesApart(t *testing.T) {
	for _, room := range []int{100, 1523, largestFrame} {
		s := newStore(room)
		var held list
		for i := range 1000 {
			held.push(put(s, 1+(i*7919)%room, byte(i)))
		}
		for i := range 1000 {
			f := held.pop()
			if len(f.data) != 1+(i*7919)%room || !bytes.Equal(f.data, bytes.Repeat([]byte{byte(i)}, len(f.data))) {
				t.Fatalf("room %d: frame %d came back as another", room, i)
			}
			s.release(f)
		}
		if s.inUse != 0 {
			t.Errorf("room %d: %d chunks are in use by nothing", room, s.inUse)
		}
	}
}

func TestStoreGivesMemoryBack(t *testing.T) {
	s := newStore(1523)
	var held list
	for range 100_000 {
		held.push(put(s, 1514, 1))
	}
	if bytes := (s.inUse + 1) * chunkBytes; bytes > 100_000*1600 {
		t.Errorf("100,000 frames of 1514 bytes take %d bytes", bytes)
	}
	for f := held.pop(); f != nil; f = held.pop() {
		s.release(f)
	}
	if s.inUse != 0 || len(s.spare) > spareChunks {
		t.Errorf("with nothing under way %d chunks are in use, %d spare", s.inUse, len(s.spare))
	}
}
