package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

const (
	// blockBytes is one block of the ring, which the kernel hands over when it is full or after
	// retire.
	blockBytes = 256 << 10
	// retire is when the kernel hands over a block that is not full. Until then its packets wait.
	retire = 20 * time.Millisecond
	// settled is within which all that the kernel counted has been handed over, by far.
	settled = 2 * time.Second
)

// ring is a packet socket whose packets the kernel puts into shared memory.
type ring struct {
	fd     int
	memory []byte
	next   int // the block that comes next
}

// openRing records from now on, all interfaces of the namespace but the loopback.
func openRing(node *netns.Handle, loopback int, o Options) (*ring, error) {
	r := &ring{fd: -1}
	err := node.Do(func() (err error) {
		// Protocol 0 until it is bound: nothing comes in before the filter stands.
		r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		return r.prepare(loopback, o)
	})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *ring) prepare(loopback int, o Options) error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("ask for a ring of version 3: %w", err)
	}
	if err := r.filter(o.program(loopback)); err != nil {
		return err
	}
	blocks := uint32(max(1, o.Ring/blockBytes))
	const frame = 2048 // of no meaning in version 3, but checked
	request := unix.TpacketReq3{
		Block_size: blockBytes, Block_nr: blocks, Frame_size: frame, Frame_nr: blocks * (blockBytes / frame),
		Retire_blk_tov: uint32(retire.Milliseconds()),
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return fmt.Errorf("make a ring of %d bytes: %w", blocks*blockBytes, err)
	}
	memory, err := unix.Mmap(r.fd, 0, int(blocks)*blockBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the ring: %w", err)
	}
	r.memory = memory
	// The protocol is in network order.
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: all}); err != nil {
		return fmt.Errorf("bind the packet socket: %w", err)
	}
	return nil
}

// filter replaces the socket's filter.
func (r *ring) filter(program []instruction) error {
	places := make(map[string]int)
	for i, in := range program {
		if in.label != "" {
			places[in.label] = i
		}
	}
	steps := make([]unix.SockFilter, len(program))
	for i, in := range program {
		steps[i] = unix.SockFilter{Code: in.code, K: in.k}
		if in.yes != "" {
			steps[i].Jt = uint8(places[in.yes] - i - 1)
		}
		if in.no != "" {
			steps[i].Jf = uint8(places[in.no] - i - 1)
		}
	}
	attached := unix.SockFprog{Len: uint16(len(steps)), Filter: &steps[0]}
	if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &attached); err != nil {
		return fmt.Errorf("attach the filter: %w", err)
	}
	return nil
}

// shut lets nothing more in.
func (r *ring) shut() error { return r.filter([]instruction{{code: give}}) }

// counted is how many packets matched since it was asked last, those among them that were dropped
// too.
func (r *ring) counted() (packets, dropped uint64, err error) {
	stats, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, 0, fmt.Errorf("ask for dropped packets: %w", err)
	}
	return uint64(stats.Packets), uint64(stats.Drops), nil
}

func (r *ring) close() error {
	var err error
	if r.memory != nil {
		err = unix.Munmap(r.memory)
		r.memory = nil
	}
	if r.fd >= 0 {
		err = errors.Join(err, unix.Close(r.fd))
		r.fd = -1
	}
	return err
}

// frame is a packet in the ring.
type frame struct {
	at     time.Time
	index  int // of its interface, as the kernel numbers them
	out    bool
	length int    // on the wire
	data   []byte // what was kept of it, in the ring
}

// Where things are in a block (struct tpacket_block_desc) and behind a packet's header
// (struct tpacket3_hdr, then struct sockaddr_ll), in bytes.
const (
	blockStatus  = 8
	blockPackets = 12
	blockFirst   = 16
	headerBytes  = int(unsafe.Sizeof(unix.Tpacket3Hdr{}))
)

// drain gives fn the packets of all blocks that the kernel has handed over.
func (r *ring) drain(fn func(*frame)) {
	for {
		block := r.memory[r.next*blockBytes : (r.next+1)*blockBytes]
		status := (*uint32)(unsafe.Pointer(&block[blockStatus]))
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			return
		}
		at := int(binary.NativeEndian.Uint32(block[blockFirst:]))
		for range binary.NativeEndian.Uint32(block[blockPackets:]) {
			header := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[at]))
			address := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&block[at+headerBytes]))
			start := at + int(header.Mac)
			fn(&frame{
				at:     time.Unix(int64(header.Sec), int64(header.Nsec)),
				index:  int(address.Ifindex),
				out:    address.Pkttype == unix.PACKET_OUTGOING,
				length: int(header.Len),
				data:   block[start : start+int(header.Snaplen)],
			})
			at += int(header.Next_offset)
		}
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		r.next = (r.next + 1) % (len(r.memory) / blockBytes)
	}
}
