package rtnl

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connected is a namespace of the test's with a connection to it.
func connected(t *testing.T) *Conn {
	t.Helper()
	need.NetNS(t)
	ns, err := netns.New("test")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), ns.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// The number of what failed is right, in whichever write it was, and what follows works.
func TestApply(t *testing.T) {
	c := connected(t)
	lo, err := c.ByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.ByIndex(lo.Index); err != nil || again.Index != lo.Index || len(again.IPv6) < 48 {
		t.Errorf("by its index it is %+v: %v", again, err)
	}
	const many = 3000
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	requests := func(wrong int) []Message {
		var all []Message
		for i := range many {
			index := lo.Index
			if i == wrong {
				index = 9999
			}
			all = append(all, SetNeighbour(index, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), mac))
		}
		return all
	}
	for _, wrong := range []int{0, 1, many / 2, many - 1} {
		failed, err := c.Apply(slices.Values(requests(wrong)))
		if !errors.Is(err, unix.ENODEV) || failed != wrong {
			t.Errorf("request %d failed: %v; want %d", failed, err, wrong)
		}
	}
	if failed, err := c.Apply(slices.Values(requests(-1))); err != nil {
		t.Errorf("request %d: %v", failed, err)
	}
	if _, err := c.Apply(slices.Values([]Message(nil))); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if _, err := c.ByName("none"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an interface that there is not: %v", err)
	}
	if local, err := c.IsLocal(netip.MustParseAddr("127.0.0.1")); err != nil || !local {
		t.Errorf("the loopback's address is local: %v, %v", local, err)
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add([]byte(Message(nil).String(1, "eth0").Uint32(2, 7)))
	f.Add([]byte{3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, value := range Attributes(b) {
			total += len(value)
		}
		if total > len(b) {
			t.Errorf("%d bytes hold attributes of %d", len(b), total)
		}
		_, _, _ = split(b)
	})
}
