package wire

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/need"
)

// anURing is a ring for the file, or skips where this host gives none.
func anURing(t *testing.T, file int) *uring {
	t.Helper()
	r, err := newURing(file)
	if err != nil {
		need.Missing(t, "io_uring", err.Error())
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// numbered are frames of an experimental type (RFC 9542) whose first byte of payload is their number.
func numbered(n int) []*frame {
	frames := make([]*frame, n)
	for i := range frames {
		data := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 9, 0x88, 0xb5, byte(i))
		frames[i] = &frame{data: append(data, make([]byte, 45)...)}
	}
	return frames
}

func TestURingWritesAllInOrder(t *testing.T) {
	needs(t, TAP)
	ns := node(t, "a")
	port, err := newTAP(end(ns, 0), link.Direction{}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.close() })
	r := anURing(t, port.file)
	var sock int
	err = ns.Do(func() (err error) {
		if sock, err = packetSocket(); err == nil {
			err = bindTo(sock, port.name, 0x88b5)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(sock) })
	seen := make([]byte, 2000)
	for round, size := range []int{1, batch, batch, 7, batch} { // past the end of the ring, too
		frames := numbered(size)
		frames[size/2].data = frames[size/2].data[:4] // no frame
		lost := make([]bool, size)
		if n, err := r.write(port.file, frames, lost); n != size || err != nil {
			t.Fatalf("round %d: took %d of %d: %v", round, n, size, err)
		}
		for i := range frames {
			if lost[i] != (i == size/2) {
				t.Errorf("round %d, frame %d of %d: lost is %v", round, i, size, lost[i])
			}
			if i == size/2 {
				continue
			}
			n, err := unix.Read(sock, seen)
			if err != nil || n != 60 || seen[14] != byte(i) {
				t.Fatalf("round %d: number %d instead of %d: %d bytes, %v", round, seen[14], i, n, err)
			}
		}
	}
	if _, err := unix.Read(sock, seen); err != unix.EAGAIN {
		t.Errorf("one frame more than was written: %v", err)
	}
}

// A file that might let a write wait, or takes anything, gets no ring.
func TestURingRefusesOtherFiles(t *testing.T) {
	anURing(t, mustTAP(t).file) // where there are any
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	if r, err := newURing(pipe[1]); err == nil {
		t.Error("a pipe got one", r.close())
	}
}

// Where there is no ring, or none any more, frames are written all the same.
func TestTAPWritesWithoutARing(t *testing.T) {
	for name, set := range map[string]func(*tap){
		"none from the start": func(p *tap) { p.ringless = true },
		"one that breaks": func(p *tap) {
			anURing(t, p.file)
			p.ring, _ = newURing(p.file)
			if err := unix.Close(p.ring.fd); err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC) // which takes no frames
			if err != nil {
				t.Fatal(err)
			}
			p.ring.fd = fd
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustTAP(t)
			set(p)
			lost := make([]bool, 8)
			if n := p.write(numbered(8), lost); n != 8 {
				t.Errorf("took %d of 8", n)
			}
			for i, l := range lost {
				if l {
					t.Errorf("frame %d is lost", i)
				}
			}
		})
	}
}

func mustTAP(t *testing.T) *tap {
	t.Helper()
	needs(t, TAP)
	p, err := newTAP(link.Port{Node: node(t, "a"), Name: "eth0", MTU: 1500}, link.Direction{}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
