package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	endport "github.com/tcplab/tcplab/agent/link/port"
	"github.com/tcplab/tcplab/internal/netns"
)

// The ring through which a packet socket gives frames
// (kernel: Documentation/networking/packet_mmap.rst, TPACKET_V2). It is the kernel's memory
// and bounded by no rmem_max, which an ordinary user cannot raise.
const (
	ringBytes = 16 << 20  // for 10,000 frames of 1500 bytes, as many as a TAP's queue
	ringBlock = 256 << 10 // in pieces of this size
	// Before the frame in its slot: struct tpacket2_hdr and sockaddr_ll, aligned, the
	// virtio header, and the 16 bytes that the kernel keeps for a link header.
	ringHead = 128
)

// packet is a veth in the node whose peer is in the engine's fabric namespace.
// What the node sends is taken where it leaves, by a packet socket on the veth
// itself: there each flow's frames are in the order of its socket, and none has been
// dropped. At the peer, behind the backlogs of several processors, both would be
// a matter of luck. The kernel copies each frame into the ring and frees
// its own at the peer, so it leaves its socket. What the node is to receive is
// sent out of the peer.
type packet struct {
	node endport.End

	out      int // socket at the peer
	in       int // socket on the node's veth
	ring     []byte
	slots    int // frames of the ring
	slotSize int
	perBlock int
	next     int // slot

	vnet     int   // bytes of header in front of each frame
	realtime int64 // of the loop's zero, in ns; renewed every millisecond
	renewed  int64
	latest   int64 // arrival

	lost uint64 // frames that found the ring full
}

// newPacket makes the pair with its ends in node and fabric, quiet and up, and the sockets.
func newPacket(p link.Port, fabric *netns.Handle, peer string, vnet bool) (*packet, error) {
	node := endport.End{NS: p.Node, Name: p.Name, MAC: p.MAC, MTU: p.MTU, Plain: p.Plain, Direct: true}
	// The peer takes super-packets where any end sends them: past the qdisc the
	// kernel drops what it would have to segment (net/core/dev.c, __dev_direct_xmit).
	far := endport.End{NS: fabric, Name: peer, MTU: p.MTU, Plain: vnet, Direct: true}
	if err := endport.Veth(node, far); err != nil {
		return nil, err
	}
	s := &packet{node: node, in: -1, out: -1}
	if vnet {
		s.vnet = vnetHeader
	}
	err := s.finishedChecksums(p)
	if err == nil {
		err = fabric.Do(func() error { return s.openOut(peer) })
	}
	if err == nil {
		err = p.Node.Do(func() error { return s.openIn(p.Name, room(p)) })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make packet port %s in %s: %w", p.Name, p.Node.Name(), err), s.close())
	}
	return s, nil
}

// prepare has nothing to do: the ring is as long as it is.
func (s *packet) prepare(link.Direction) error { return nil }

// finishedChecksums lets the node finish its checksums, since a frame that is
// carried over a wire has one.
func (s *packet) finishedChecksums(p link.Port) error {
	if p.Plain {
		return nil
	}
	return p.Node.Do(func() error {
		sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a control socket: %w", err)
		}
		defer unix.Close(sock)
		// struct ethtool_value and struct ifreq
		value := [2]uint32{unix.ETHTOOL_STXCSUM, 0}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:unix.IFNAMSIZ-1], p.Name)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(sock), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); e != 0 {
			return fmt.Errorf("turn checksum offload off: %w", e)
		}
		return nil
	})
}

// openOut makes the socket that sends, in this thread's namespace. Without a protocol it
// receives nothing.
func (s *packet) openOut(peer string) (err error) {
	s.out, err = packetSocket(
		packetOption{"PACKET_QDISC_BYPASS", unix.PACKET_QDISC_BYPASS, 1},
		packetOption{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, s.vnet / vnetHeader},
	)
	if err != nil {
		return err
	}
	return bindTo(s.out, peer, 0)
}

// openIn makes the socket that receives what the interface of this thread's
// namespace sends.
func (s *packet) openIn(name string, room int) (err error) {
	s.in, err = packetSocket(
		packetOption{"TPACKET_V2", unix.PACKET_VERSION, unix.TPACKET_V2},
		packetOption{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, s.vnet / vnetHeader},
	)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptSockFprog(s.in, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, outgoing()); err != nil {
		return fmt.Errorf("filter what the interface sends: %w", err)
	}
	if err := s.mapRing(room); err != nil {
		return err
	}
	return bindTo(s.in, name, unix.ETH_P_ALL)
}

// outgoing is a filter (classic BPF) that lets pass what an interface sends and
// not what it receives.
func outgoing() *unix.SockFprog {
	const packetType = 0xfffff000 + 4 // SKF_AD_OFF + SKF_AD_PKTTYPE
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: packetType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.PACKET_OUTGOING},
		{Code: unix.BPF_RET | unix.BPF_K, K: math.MaxUint32},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
}

// packetOption is an option of packet sockets, with the name that errors give it.
type packetOption struct {
	name          string
	option, value int
}

// packetSocket opens a socket that receives nothing until it is bound.
func packetSocket(options ...packetOption) (int, error) {
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open a packet socket: %w", err)
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(sock, unix.SOL_PACKET, o.option, o.value); err != nil {
			unix.Close(sock)
			return -1, fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	return sock, nil
}

// bindTo binds a packet socket to an interface of this thread's namespace.
func bindTo(sock int, name string, protocol uint16) error {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	var wire [2]byte
	binary.BigEndian.PutUint16(wire[:], protocol)
	err = unix.Bind(sock, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(wire[:]), Ifindex: iface.Index})
	if err != nil {
		return fmt.Errorf("bind a packet socket to %s: %w", name, err)
	}
	return nil
}

func (s *packet) mapRing(room int) error {
	const align = 16 // TPACKET_ALIGNMENT
	s.slotSize = (ringHead + room + align - 1) &^ (align - 1)
	s.perBlock = ringBlock / s.slotSize
	blocks := ringBytes / ringBlock
	if s.vnet > 0 {
		blocks *= 2 // super-packets
	}
	s.slots = s.perBlock * blocks
	err := unix.SetsockoptTpacketReq(s.in, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{
		Block_size: ringBlock,
		Block_nr:   uint32(blocks),
		Frame_size: uint32(s.slotSize),
		Frame_nr:   uint32(s.slots),
	})
	if err != nil {
		return fmt.Errorf("make a ring of %d frames of %d bytes: %w", s.slots, s.slotSize, err)
	}
	s.ring, err = unix.Mmap(s.in, 0, blocks*ringBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the ring: %w", err)
	}
	return nil
}

func (s *packet) fd() int { return s.in }

func (s *packet) read(buf []byte, now int64) (int, int64, error) {
	slot := s.ring[s.next/s.perBlock*ringBlock+s.next%s.perBlock*s.slotSize:][:s.slotSize]
	head := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
	status := atomic.LoadUint32(&head.Status)
	if status&unix.TP_STATUS_USER == 0 {
		return 0, 0, nil
	}
	n := copy(buf, slot[int(head.Mac)-s.vnet:int(head.Mac)+int(head.Snaplen)])
	if status&unix.TP_STATUS_VLAN_VALID != 0 && n+4 <= len(buf) {
		n = retag(buf, n, s.vnet, head)
	}
	if head.Snaplen < head.Len {
		n = len(buf) // longer than the port's MTU allows
	}
	arrival := s.arrival(int64(head.Sec)*1e9+int64(head.Nsec), now)
	atomic.StoreUint32(&head.Status, unix.TP_STATUS_KERNEL)
	s.next++
	if s.next == s.slots {
		s.next = 0
	}
	return n, arrival, nil
}

// retag puts a VLAN tag, which the kernel gives apart, back into the frame.
func retag(buf []byte, n, header int, head *unix.Tpacket2Hdr) int {
	const addresses = 12
	at := header + addresses
	copy(buf[at+4:n+4], buf[at:n])
	binary.BigEndian.PutUint16(buf[at:], head.Vlan_tpid)
	binary.BigEndian.PutUint16(buf[at+2:], head.Vlan_tci)
	return n + 4
}

// arrival is the kernel's time stamp on the loop's clock. The stamp is of the
// wall clock, which may be set: never later than now, nor earlier than the frame before.
func (s *packet) arrival(stamp, now int64) int64 {
	if s.realtime == 0 || now-s.renewed > 1e6 {
		s.realtime = time.Now().UnixNano() - now
		s.renewed = now
	}
	s.latest = min(now, max(s.latest, stamp-s.realtime))
	return s.latest
}

// fault reports an interface that has been deleted. One that was only taken
// down is an error too, for the socket, and comes back.
func (s *packet) fault() error {
	if _, err := unix.GetsockoptInt(s.in, unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
		return err // reading it has cleared it
	}
	address, err := unix.Getsockname(s.in)
	if err != nil {
		return err
	}
	if bound, ok := address.(*unix.SockaddrLinklayer); ok && int32(bound.Ifindex) < 0 {
		return unix.ENODEV
	}
	return nil
}

func (s *packet) write(frames []*frame, lost []bool) (n int) {
	return writeEach(frames, lost, func(data []byte) unix.Errno {
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.out), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), unix.MSG_DONTWAIT, 0, 0)
		return e
	})
}

// drops is how many frames found the ring full.
func (s *packet) drops() (uint64, error) {
	stats, err := unix.GetsockoptTpacketStats(s.in, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("read the packet socket's statistics: %w", err)
	}
	s.lost += uint64(stats.Drops) // the kernel's counter restarts with each look
	return s.lost, nil
}

func (s *packet) close() error {
	err := endport.Remove(s.node)
	if s.ring != nil {
		err = errors.Join(err, unix.Munmap(s.ring))
	}
	for _, sock := range []int{s.in, s.out} {
		if sock >= 0 {
			err = errors.Join(err, unix.Close(sock))
		}
	}
	return err
}
