package netem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// qdisc is one node of a tree as the kernel is told of it.
type qdisc interface {
	kind() string
	options() *nl.RtAttr
}

// requests asks a namespace's kernel side about qdiscs, over one socket.
// The netlink library knows netem by 32-bit ticks and tbf without exact bursts;
// these requests carry what the kernel takes.
type requests struct {
	mu      sync.Mutex // a socket carries one request at a time
	sockets map[int]*nl.SocketHandle
}

func newRequests(ns *netns.Handle) (*requests, error) {
	socket, err := nl.GetNetlinkSocketAt(vnetns.NsHandle(ns.FD()), vnetns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Name(), err)
	}
	return &requests{sockets: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}}, nil
}

func (r *requests) close() {
	r.sockets[unix.NETLINK_ROUTE].Close()
}

// position is where a qdisc hangs.
type position struct {
	device         int // interface index
	parent, handle uint32
}

// add makes a qdisc where none is but the default.
func (r *requests) add(at position, q qdisc) error {
	return r.modify(at, q, unix.NLM_F_CREATE|unix.NLM_F_EXCL, "add")
}

// change sets a qdisc's options and leaves its frames where they are.
func (r *requests) change(at position, q qdisc) error { return r.modify(at, q, 0, "change") }

// replace puts a qdisc in the place of another, whose frames are dropped.
func (r *requests) replace(at position, q qdisc) error {
	return r.modify(at, q, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, "replace")
}

func (r *requests) modify(at position, q qdisc, flags int, verb string) error {
	_, err := r.execute(unix.RTM_NEWQDISC, flags|unix.NLM_F_ACK, at, nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(q.kind())), q.options())
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, q.kind(), err)
	}
	return nil
}

// state is a qdisc as the kernel tells of it.
type state struct {
	kind    string
	options []byte
	sent    uint64 // frames that left it
	drops   uint64 // frames that it, or a qdisc below it, dropped
	waiting int    // frames in it and below it
}

// get asks for the qdisc at a position; a handle of 0 stands for whichever is there.
func (r *requests) get(at position) (state, error) {
	msgs, err := r.execute(unix.RTM_GETQDISC, unix.NLM_F_ECHO, at)
	if err != nil {
		return state{}, fmt.Errorf("ask for the qdisc under %x: %w", at.parent, err)
	}
	if len(msgs) != 1 {
		return state{}, fmt.Errorf("ask for the qdisc under %x: %d answers", at.parent, len(msgs))
	}
	return parseState(msgs[0])
}

func (r *requests) execute(message, flags int, at position, attrs ...*nl.RtAttr) ([][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	req := &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{
			Len:   unix.SizeofNlMsghdr,
			Type:  uint16(message),
			Flags: unix.NLM_F_REQUEST | uint16(flags),
		},
		Sockets: r.sockets,
	}
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(at.device), Handle: at.handle, Parent: at.parent})
	for _, attr := range attrs {
		req.AddData(attr)
	}
	return req.Execute(unix.NETLINK_ROUTE, 0)
}

// parseState reads an RTM_NEWQDISC message without its netlink header.
func parseState(msg []byte) (state, error) {
	const header = 20 // struct tcmsg
	if len(msg) < header {
		return state{}, fmt.Errorf("the kernel's answer has %d bytes, want at least %d", len(msg), header)
	}
	attrs, err := attributes(msg[header:])
	if err != nil {
		return state{}, err
	}
	kind := attrs[nl.TCA_KIND]
	if len(kind) < 2 {
		return state{}, errors.New("the kernel's answer names no qdisc")
	}
	s := state{kind: string(kind[:len(kind)-1]), options: attrs[nl.TCA_OPTIONS]}
	stats, err := attributes(attrs[nl.TCA_STATS2])
	if err != nil {
		return state{}, fmt.Errorf("statistics: %w", err)
	}
	if basic := stats[nl.TCA_STATS_BASIC]; len(basic) >= 12 { // struct gnet_stats_basic: bytes, packets
		s.sent = uint64(binary.NativeEndian.Uint32(basic[8:]))
	}
	if packets := stats[nl.TCA_STATS_PKT64]; len(packets) >= 8 { // only once 32 bits are too few
		s.sent = binary.NativeEndian.Uint64(packets)
	}
	if queue := stats[nl.TCA_STATS_QUEUE]; len(queue) >= 12 { // struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits
		s.waiting = int(binary.NativeEndian.Uint32(queue))
		s.drops = uint64(binary.NativeEndian.Uint32(queue[8:]))
	}
	return s, nil
}

// attributes reads netlink attributes; of two of one type the last counts.
func attributes(b []byte) (map[uint16][]byte, error) {
	attrs := make(map[uint16][]byte)
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return nil, fmt.Errorf("an attribute of %d bytes where %d are left", length, len(b))
		}
		kind := binary.NativeEndian.Uint16(b[2:]) & nl.NLA_TYPE_MASK
		attrs[kind] = b[unix.SizeofRtAttr:length]
		b = b[min((length+3)&^3, len(b)):]
	}
	return attrs, nil
}
