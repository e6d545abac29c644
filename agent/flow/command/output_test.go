package command

import (
	"os"
	"strings"
	"testing"
)

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0050 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0000000000000000 20 4 30 10 -1
   0: 00000000000000000000000000000000:1451 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 0
`

func TestListens(t *testing.T) {
	for port, want := range map[uint32]bool{8080: true, 80: false, 40000: false, 5201: true, 0: false, 1: false} {
		if got := listens([]byte(table), port); got != want {
			t.Errorf("port %d: %v, want %v", port, got, want)
		}
	}
}

func FuzzListens(f *testing.F) {
	f.Add([]byte(table), uint32(80))
	if own, err := os.ReadFile("/proc/self/net/tcp"); err == nil {
		f.Add(own, uint32(22))
	}
	f.Fuzz(func(t *testing.T, table []byte, port uint32) {
		if listens(table, port) && (port > 65535 || !strings.Contains(string(table), listenState)) {
			t.Errorf("it found port %d in %q", port, table)
		}
	})
}

// Whatever way output comes in, its lines are those that it has.
func FuzzLines(f *testing.F) {
	f.Add("one\ntwo\nthree", uint8(2))
	f.Add("\n\n", uint8(1))
	f.Fuzz(func(t *testing.T, text string, piece uint8) {
		var lines []string
		o := newOutput("x", 1<<20, false, func(line []byte) { lines = append(lines, string(line)) }, func() (Artifact, error) {
			return &file{of: &kept{whole: make(map[string]string)}}, nil
		})
		o.read(&pieces{text, int(piece) + 1})
		want := strings.Split(text, "\n")
		if want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		for i := range want {
			want[i] = want[i][:min(len(want[i]), lineSize)]
		}
		if strings.Join(lines, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q in pieces of %d is %q", text, piece, lines)
		}
		if text != "" && o.artifact.(*file).String() != text {
			t.Errorf("%q is kept of %q", o.artifact.(*file).String(), text)
		}
	})
}

// pieces reads a text a few bytes at a time.
type pieces struct {
	rest string
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	n := copy(b, p.rest[:min(p.size, len(p.rest))])
	p.rest = p.rest[n:]
	if n == 0 {
		return 0, os.ErrClosed
	}
	return n, nil
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"end": {"sum": [1, 2.5e3, null, true]}}`))
	f.Add([]byte("[[[[[[[["))
	f.Fuzz(func(t *testing.T, text []byte) {
		if v, err := parseJSON(text); err != nil && v != nil {
			t.Errorf("%q: %v and %v", text, v, err)
		}
	})
}
