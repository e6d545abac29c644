package traffic

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopback is a namespace with nothing but a loopback interface.
func loopback(t *testing.T) string {
	t.Helper()
	need.NetNS(t)
	ns, err := netns.New("loopback")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD())
}

func TestMeasure(t *testing.T) {
	path := loopback(t)
	for _, address := range []string{"127.0.0.1", "::1"} {
		t.Run(address, func(t *testing.T) {
			node := Node{Path: path, Address: netip.MustParseAddr(address)}
			streams := []Stream{
				{Port: 4001, Frame: 200, Count: 50, Every: time.Millisecond, ECN: true},
				{Port: 4002, Frame: MinFrame, Count: 100, Start: 20 * time.Millisecond},
			}
			// One socket is both ends: what it sends comes to itself.
			seen, err := Measure(t.Context(), Node{Path: path, Address: node.Address}, node, streams[:0], 0)
			if err != nil || len(seen) != 0 {
				t.Fatalf("nothing to send: %v, %v", seen, err)
			}
			for i := range streams {
				streams[i].From = streams[i].Port + 100
			}
			seen, err = Measure(t.Context(), node, node, streams, 0)
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range seen {
				if len(s.Sent) != streams[i].Count || len(s.Arrivals) != streams[i].Count || len(s.Lost())+s.Twice()+s.Overtaken()+s.Marked() != 0 || s.Damaged != 0 {
					t.Errorf("stream %d: %d sent, %d came, lost %v, twice %d, overtaken %d, marked %d, damaged %d", i,
						len(s.Sent), len(s.Arrivals), s.Lost(), s.Twice(), s.Overtaken(), s.Marked(), s.Damaged)
				}
				if least := Quantile(s.Delays(), 0); least < 0 || least > time.Second {
					t.Errorf("stream %d: the least delay is %v", i, least)
				}
			}
			if seen[1].Sent[0] < 20*time.Millisecond {
				t.Errorf("the second stream started at %v", seen[1].Sent[0])
			}
			took, err := Connect(t.Context(), node, node, 4003)
			if err != nil || took <= 0 || took > time.Second {
				t.Errorf("connected in %v: %v", took, err)
			}
		})
	}
}

func TestSeen(t *testing.T) {
	s := Seen{Stream: Stream{Frame: 125}, Sent: make([]time.Duration, 6), Arrivals: []Arrival{
		{Number: 0, At: 1e9}, {Number: 2, At: 2e9}, {Number: 1, At: 3e9, CE: true}, {Number: 4, At: 4e9}, {Number: 4, At: 5e9},
	}}
	if lost := s.Lost(); len(lost) != 2 || lost[0] != 3 || lost[1] != 5 || s.Twice() != 1 || s.Overtaken() != 1 || s.Marked() != 1 {
		t.Errorf("lost %v, twice %d, overtaken %d, marked %d", lost, s.Twice(), s.Overtaken(), s.Marked())
	}
	if rate := s.Rate(0, 6e9); rate != 1000 {
		t.Errorf("4 frames of 1000 bit in 4 s came at %v bit/s", rate)
	}
	if mean, deviation := Deviation([]time.Duration{1, 3}); mean != 2 || deviation != 1 {
		t.Errorf("1 and 3 are %v ± %v", mean, deviation)
	}
}
