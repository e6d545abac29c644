package veth

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

func spec(t *testing.T) link.Spec {
	t.Helper()
	s := link.Spec{Name: "bare"}
	for i, name := range []string{"left", "right"} {
		ns, err := netns.New(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		s.Ends[i] = link.Port{Node: ns, Name: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}, MTU: 1500}
	}
	return s
}

func TestRefusesShapes(t *testing.T) {
	for name, shape := range map[string]link.Shape{
		"rate":  {Rate: 1e6},
		"delay": {Delay: time.Millisecond},
		"loss":  {Loss: link.RandomLoss(0.1)},
		"queue": {Queue: link.Queue{Packets: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			for direction := range 2 {
				var s link.Spec
				s.Directions[direction].Shape = shape
				if err := (Engine{}).Check(s); err == nil {
					t.Errorf("direction %d with %+v was accepted", direction, shape)
				}
			}
		})
	}
	if err := (Engine{}).Check(link.Spec{}); err != nil {
		t.Errorf("a link without a shape: %v", err)
	}
}

func TestLinkPassesCountsAndGoes(t *testing.T) {
	need.NetNS(t)
	s := spec(t)
	w, err := Engine{}.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.ReadBack()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([2]link.Direction{}, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	send := func(frames int) {
		err := s.Ends[0].Node.Do(func() error {
			device, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
			if err != nil {
				return err
			}
			defer unix.Close(sock)
			frame := make([]byte, 60)
			copy(frame, s.Ends[1].MAC)
			frame[12], frame[13] = 0x88, 0xb5
			for range frames {
				if err := unix.Sendto(sock, frame, 0, &unix.SockaddrLinklayer{Ifindex: device.Index}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want link.Counters) {
		t.Helper()
		counts, err := w.Counters()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([2]link.Counters{want, {}}, counts); diff != "" {
			t.Errorf("counters (-want +got):\n%s", diff)
		}
	}
	send(3)
	expect(link.Counters{Received: 3, Delivered: 3})
	if err := w.Rearm(); err != nil {
		t.Fatal(err)
	}
	send(2)
	expect(link.Counters{Received: 2, Delivered: 2})

	err = s.Ends[1].Node.Do(func() error {
		device, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.QdiscAdd(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: device.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)},
			Rate:       1e6, Limit: 1e6, Buffer: 1e6,
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.ReadBack(); err == nil {
		t.Error("a foreign qdisc at a port was not seen")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, end := range s.Ends {
		err := end.Node.Do(func() error {
			_, err := netlink.LinkByName("eth0")
			return err
		})
		if !errors.As(err, &netlink.LinkNotFoundError{}) {
			t.Errorf("%s still has its port: %v", end.Node.Name(), err)
		}
	}
	if _, err := w.Counters(); err == nil {
		t.Error("a closed link counts")
	}
}
