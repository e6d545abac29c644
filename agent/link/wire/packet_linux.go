package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	ringBytes = 8 << 20   // for 5,000 frames of 1500 bytes
	ringBlock = 256 << 10 // in pieces of this size
	// Before the frame in its slot: struct tpacket2_hdr and sockaddr_ll, aligned, the
	// virtio header, and the 16 bytes that the kernel keeps for a link header.
	ringHead = 128
)

// packet is a veth in the node whose peer, in the engine's fabric namespace, is
// held by a packet socket. The kernel copies what the node sends into the
// ring and frees it at once, so it leaves its socket there.
type packet struct {
	sock int
	node endport.End

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

// newPacket makes the pair with its ends in node and fabric, quiet and up, and the socket.
func newPacket(p link.Port, fabric *netns.Handle, peer string, vnet bool) (*packet, error) {
	node := endport.End{NS: p.Node, Name: p.Name, MAC: p.MAC, MTU: p.MTU, Plain: p.Plain, Direct: true}
	// The far end takes super-packets where any end sends them: past the qdisc
	// the kernel drops what it would have to segment (net/core/dev.c, __dev_direct_xmit).
	far := endport.End{NS: fabric, Name: peer, MTU: p.MTU, Plain: vnet, Direct: true}
	if err := endport.Veth(node, far); err != nil {
		return nil, err
	}
	s := &packet{sock: -1, node: node}
	if vnet {
		s.vnet = vnetHeader
	}
	err := s.finishedChecksums(p)
	if err == nil {
		err = fabric.Do(func() error { return s.open(peer, room(p)) })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make packet port %s in %s: %w", p.Name, p.Node.Name(), err), s.close())
	}
	return s, nil
}

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

// open makes the socket on the interface of this thread's namespace.
func (s *packet) open(peer string, room int) error {
	iface, err := net.InterfaceByName(peer)
	if err != nil {
		return err
	}
	// Protocol 0: it receives nothing until it is bound, with all options set.
	s.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	options := []struct {
		name          string
		option, value int
	}{
		{"TPACKET_V2", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING, 1},
		{"PACKET_QDISC_BYPASS", unix.PACKET_QDISC_BYPASS, 1},
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, s.vnet / vnetHeader},
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(s.sock, unix.SOL_PACKET, o.option, o.value); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	if err := s.mapRing(room); err != nil {
		return err
	}
	promiscuous := unix.PacketMreq{Ifindex: int32(iface.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(s.sock, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promiscuous); err != nil {
		return fmt.Errorf("make %s promiscuous: %w", peer, err)
	}
	var all [2]byte
	binary.BigEndian.PutUint16(all[:], unix.ETH_P_ALL)
	err = unix.Bind(s.sock, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(all[:]), Ifindex: iface.Index})
	if err != nil {
		return fmt.Errorf("bind the packet socket to %s: %w", peer, err)
	}
	return nil
}

func (s *packet) mapRing(room int) error {
	const align = 16 // TPACKET_ALIGNMENT
	s.slotSize = (ringHead + room + align - 1) &^ (align - 1)
	s.perBlock = ringBlock / s.slotSize
	blocks := ringBytes / ringBlock
	if s.vnet > 0 {
		blocks *= 4 // super-packets
	}
	s.slots = s.perBlock * blocks
	err := unix.SetsockoptTpacketReq(s.sock, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{
		Block_size: ringBlock,
		Block_nr:   uint32(blocks),
		Frame_size: uint32(s.slotSize),
		Frame_nr:   uint32(s.slots),
	})
	if err != nil {
		return fmt.Errorf("make a ring of %d frames of %d bytes: %w", s.slots, s.slotSize, err)
	}
	s.ring, err = unix.Mmap(s.sock, 0, blocks*ringBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the ring: %w", err)
	}
	return nil
}

func (s *packet) fd() int { return s.sock }

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

func (s *packet) write(data []byte) error {
	_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.sock), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), unix.MSG_DONTWAIT, 0, 0)
	return errno(e)
}

// drops is how many frames found the ring full.
func (s *packet) drops() (uint64, error) {
	stats, err := unix.GetsockoptTpacketStats(s.sock, unix.SOL_PACKET, unix.PACKET_STATISTICS)
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
	if s.sock >= 0 {
		err = errors.Join(err, unix.Close(s.sock))
	}
	return err
}
