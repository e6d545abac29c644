package port

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

func namespace(t testing.TB, name string) *netns.Handle {
	t.Helper()
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func pair(t testing.TB) (a, b End) {
	t.Helper()
	a = End{NS: namespace(t, "a"), Name: "left", MTU: 1500, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	b = End{NS: namespace(t, "b"), Name: "right", MTU: 1400, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	if err := Veth(a, b); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestVethIsAsAskedAndGoesWithoutTrace(t *testing.T) {
	need.NetNS(t)
	a, b := pair(t)
	for _, end := range []End{a, b} {
		err := end.NS.Do(func() error {
			link, err := netlink.LinkByName(end.Name)
			if err != nil {
				return err
			}
			attrs := link.Attrs()
			if attrs.MTU != end.MTU || attrs.HardwareAddr.String() != end.MAC.String() || attrs.Flags&net.FlagUp == 0 {
				t.Errorf("%s: MTU %d, address %v, %v; asked %d, %v, up", end.Name, attrs.MTU, attrs.HardwareAddr, attrs.Flags, end.MTU, end.MAC)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if err := Remove(a); err != nil {
		t.Fatal(err)
	}
	for _, end := range []End{a, b} {
		err := end.NS.Do(func() error {
			_, err := netlink.LinkByName(end.Name)
			return err
		})
		if !errors.As(err, &netlink.LinkNotFoundError{}) {
			t.Errorf("%s is still there: %v", end.Name, err)
		}
	}
	if err := Remove(a); err != nil {
		t.Errorf("removing it once more: %v", err)
	}
}

func TestVethThatFailsLeavesNothing(t *testing.T) {
	need.NetNS(t)
	a := End{NS: namespace(t, "a"), Name: "same", MTU: 1500}
	if err := Veth(a, End{NS: a.NS, Name: "same", MTU: 1500}); err == nil {
		t.Fatal("two interfaces of one name in one namespace were made")
	}
	err := a.NS.Do(func() error {
		links, err := netlink.LinkList()
		if len(links) != 1 {
			t.Errorf("%d interfaces, want the loopback alone", len(links))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// packets opens a socket that sees every frame of the interface, both ways.
func packets(t testing.TB, end End) int {
	t.Helper()
	var sock int
	err := end.NS.Do(func() error {
		link, err := net.InterfaceByName(end.Name)
		if err != nil {
			return err
		}
		all := binary.BigEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		all = all>>8 | all<<8
		sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Bind(sock, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(sock) })
	return sock
}

func TestPortsSayNothingByThemselves(t *testing.T) {
	need.NetNS(t)
	a, b := pair(t)
	sock := packets(t, b)
	err := a.NS.Do(func() error {
		link, err := netlink.LinkByName(a.Name)
		if err != nil {
			return err
		}
		for _, address := range []string{"fd00::1/64", "10.0.0.1/24"} {
			addr, err := netlink.ParseAddr(address)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// An ordinary veth sends duplicate address probes and the first of its
	// router solicitations within a second, the probes at once.
	deadline := time.Now().Add(1200 * time.Millisecond)
	frame := make([]byte, 2048)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return
		}
		tv := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			t.Fatal(err)
		}
		n, _, err := unix.Recvfrom(sock, frame, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !isListenerReport(frame[:n]) || time.Until(deadline) < 900*time.Millisecond {
			t.Errorf("a frame of %d bytes came by itself: % x", n, frame[:n])
		}
	}
}

// isListenerReport tells the one kind of frame that cannot be prevented: an MLDv2 report (ICMPv6 type
// 143 behind a hop-by-hop header).
func isListenerReport(frame []byte) bool {
	return len(frame) > 62 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 && frame[20] == 0 && frame[62] == 143
}

// The kernel makes the first end ready in a worker; a frame sent before is gone.
func TestFirstFrameArrives(t *testing.T) {
	need.NetNS(t)
	for range 50 {
		a, b := pair(t)
		for _, way := range [][2]End{{a, b}, {b, a}} {
			out, in := packets(t, way[0]), packets(t, way[1])
			tv := unix.NsecToTimeval((2 * time.Second).Nanoseconds())
			if err := unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
				t.Fatal(err)
			}
			frame := make([]byte, 60)
			copy(frame, way[1].MAC)
			frame[12], frame[13] = 0x88, 0xb5
			if _, err := unix.Write(out, frame); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Read(in, frame); err != nil {
				t.Fatalf("the first frame from %s did not arrive: %v", way[0].Name, err)
			}
		}
	}
}

func TestSegmentationIsOffUnlessPlain(t *testing.T) {
	need.NetNS(t)
	for _, plain := range []bool{false, true} {
		a := End{NS: namespace(t, "a"), Name: "left", MTU: 1500, Plain: plain}
		b := End{NS: namespace(t, "b"), Name: "right", MTU: 1500, Plain: plain}
		if err := Veth(a, b); err != nil {
			t.Fatal(err)
		}
		err := a.NS.Do(func() error {
			link, err := netlink.LinkByName(a.Name)
			if err != nil {
				return err
			}
			sock, err := control()
			if err != nil {
				return err
			}
			defer unix.Close(sock)
			for name, get := range map[string]uint32{
				"TSO": unix.ETHTOOL_GTSO, "GSO": unix.ETHTOOL_GGSO, "GRO": unix.ETHTOOL_GGRO,
			} {
				value := make([]byte, 8) // struct ethtool_value
				binary.NativeEndian.PutUint32(value, get)
				if err := ethtool(sock, link.Attrs().Name, value); err != nil {
					return err
				}
				on := binary.NativeEndian.Uint32(value[4:]) != 0
				if want := plain && name != "GRO"; on != want {
					t.Errorf("plain %v: %s is %v, want %v", plain, name, on, want)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// Disorder itself shows only in a flood that outruns its softirq, so the test
// reads back the setting that prevents it.
func TestFramesAreHandledByOneProcessor(t *testing.T) {
	need.NetNS(t)
	a, b := pair(t)
	for _, end := range []End{a, b} {
		err := end.NS.Do(func() error {
			root, err := sysfs()
			if err != nil {
				return err
			}
			defer unix.Close(root)
			fd, err := unix.Openat(root, "class/net/"+end.Name+"/queues/rx-0/rps_cpus", unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			text := make([]byte, 256)
			n, err := unix.Read(fd, text)
			if err != nil {
				return err
			}
			mask := strings.TrimLeft(strings.TrimSpace(string(text[:n])), "0,")
			if mask != "1" {
				t.Errorf("%s: frames may be handled by processors %q, want the first alone", end.Name, mask)
			}
			return nil
		})
		if errors.Is(err, unix.ENOENT) {
			t.Skip("a kernel for one processor: nothing can overtake")
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkVeth(b *testing.B) {
	need.NetNS(b)
	left, right := namespace(b, "a"), namespace(b, "b")
	for b.Loop() {
		end := End{NS: left, Name: "left", MTU: 1500}
		if err := Veth(end, End{NS: right, Name: "right", MTU: 1500}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := Remove(end); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// Every setting is in force on an interface, whether its namespace was prepared
// or not: the numbers by which the kernel tells of settings are the right ones.
func TestSettingsAreInForce(t *testing.T) {
	need.NetNS(t)
	for _, prepared := range []bool{false, true} {
		a := End{NS: namespace(t, "a"), Name: "left", MTU: 1500}
		b := End{NS: namespace(t, "b"), Name: "right", MTU: 1500}
		if prepared {
			if err := errors.Join(Prepare(a.NS), Prepare(b.NS)); err != nil {
				t.Fatal(err)
			}
		}
		if err := Veth(a, b); err != nil {
			t.Fatal(err)
		}
		err := a.NS.Do(func() error {
			for _, s := range quietIPv6() {
				text, err := os.ReadFile(filepath.Join(confIPv6, a.Name, s.name))
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return err
				}
				got, err := strconv.Atoi(strings.TrimSpace(string(text)))
				if err != nil {
					return err
				}
				if least, _ := strconv.Atoi(s.value); got < least || got > int(s.most) {
					t.Errorf("prepared %v: %s is %d, want %s to %d", prepared, s.name, got, s.value, s.most)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
