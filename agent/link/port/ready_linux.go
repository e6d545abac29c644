package port

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// readyWithin bounds the wait for the kernel's link watch; it takes microseconds
// on an idle host.
const readyWithin = 5 * time.Second

// ready waits until an interface that is up sends what it is given. The end of a
// veth that came up before its peer gets its carrier from the peer, and the
// kernel lets it send only when a worker has taken notice (net/core/link_watch.c);
// until then every frame is dropped without a trace in any counter. From
// kernel 6.8 the question itself makes it ready. (The other end can send at once, while the kernel
// reports it as up only up to a second later.)
func ready(end End) error {
	return end.NS.Do(func() error {
		deadline := time.Now().Add(readyWithin)
		again := time.NewTicker(100 * time.Microsecond)
		defer again.Stop()
		for {
			device, err := netlink.LinkByName(end.Name)
			if err != nil {
				return fmt.Errorf("find %s in %s: %w", end.Name, end.NS.Name(), err)
			}
			state := device.Attrs().OperState
			if state == netlink.OperUp {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s in %s is %v and not up %v after it was brought up: the host is overloaded", end.Name, end.NS.Name(), state, readyWithin)
			}
			<-again.C
		}
	})
}
