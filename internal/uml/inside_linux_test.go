package uml

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

// guestFeatures are what a guest must have, and what many machines lack.
const guestFeatures = "root,netns,tun,netem,tbf,htb,fq,fq_codel,cake,pfifo,clsact,reno,cubic,bbr"

// TestInsideGuest is what TestGuestHasWhatNetemNeeds runs in a guest.
func TestInsideGuest(t *testing.T) {
	if !strings.HasPrefix(os.Getenv(need.Require), guestFeatures) {
		t.Skip("runs in a guest, by TestGuestHasWhatNetemNeeds")
	}
	need.Root(t)
	need.TUN(t)
	for _, kind := range []string{"netem", "tbf", "htb", "fq", "fq_codel", "cake", "pfifo", "clsact"} {
		need.Qdisc(t, kind)
	}
	for _, name := range []string{"reno", "cubic", "bbr"} {
		need.Congestion(t, name)
	}
	t.Run("netem delays", func(t *testing.T) {
		const delay = 50 * time.Millisecond
		space, err := netns.New("node")
		if err != nil {
			t.Fatal(err)
		}
		defer space.Close()
		if err := space.Do(func() error { return delayLoopback(delay) }); err != nil {
			t.Fatal(err)
		}
		// A connect crosses the loopback interface twice.
		connect := connectTime(t, space)
		if connect < 2*delay || connect > 2*delay+delay {
			t.Errorf("a connection over 2 × %v of netem took %v", delay, connect)
		}
	})
	t.Run("the clock is the host's", func(t *testing.T) {
		// The wall clock is read from the host each time; a timer counts in the
		// guest. They must not drift apart.
		const wait = 500 * time.Millisecond
		before := time.Now()
		<-time.After(wait)
		after := time.Now()
		steady := after.Sub(before)
		wall := after.Round(0).Sub(before.Round(0))
		if steady < wait || (steady-wall).Abs() > wait/20 {
			t.Errorf("a timer of %v took %v by the monotonic clock, %v by the wall clock", wait, steady, wall)
		}
	})
}

// delayLoopback puts a netem on the loopback interface of this namespace.
func delayLoopback(delay time.Duration) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.QdiscAdd(netlink.NewNetem(netlink.QdiscAttrs{
		LinkIndex: lo.Attrs().Index,
		Parent:    netlink.HANDLE_ROOT,
		Handle:    netlink.MakeHandle(1, 0),
	}, netlink.NetemQdiscAttrs{Latency: uint32(delay.Microseconds()), Limit: 1000}))
}

// connectTime is how long a TCP connection over the namespace's loopback
// interface takes to stand.
func connectTime(t *testing.T, space *netns.Handle) time.Duration {
	t.Helper()
	var took time.Duration
	err := space.Do(func() error {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		start := time.Now()
		// By address, so that the socket is made on this thread.
		conn, err := net.DialTCP("tcp4", nil, listener.Addr().(*net.TCPAddr))
		if err != nil {
			return err
		}
		took = time.Since(start)
		return conn.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	return took
}
