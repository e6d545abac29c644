package netem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// answerWithin bounds the wait for the kernel, which answers at once.
const answerWithin = 10 * time.Second

// qdisc is one node of a tree as the kernel is told of it.
type qdisc interface {
	kind() string
	options() *nl.RtAttr
}

// position is where a qdisc hangs.
type position struct {
	device         int // interface index
	parent, handle uint32
}

// verb is what is to be done at a position.
type verb struct {
	name  string
	flags uint16
}

// The verbs. None of them is needed for what goes with its device.
func adding() verb    { return verb{"add", unix.NLM_F_CREATE | unix.NLM_F_EXCL} }        // where none is but the default
func changing() verb  { return verb{"change", 0} }                                       // options alone: its frames stay where they are
func replacing() verb { return verb{"replace", unix.NLM_F_CREATE | unix.NLM_F_REPLACE} } // another, whose frames are dropped

// request is one message to the kernel, and what to call it when it fails.
type request struct {
	what    string
	message uint16
	flags   uint16
	header  nl.TcMsg
	attrs   []*nl.RtAttr
}

// to is the request that does something with a qdisc.
func (v verb) to(q qdisc, at position) request {
	return request{
		what:    v.name + " " + q.kind(),
		message: unix.RTM_NEWQDISC,
		flags:   v.flags,
		header:  nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(at.device), Handle: at.handle, Parent: at.parent},
		attrs:   []*nl.RtAttr{nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(q.kind())), q.options()},
	}
}

// asking is the request for the qdisc at a position; a handle of 0 stands for whichever is there.
func asking(at position) request {
	return request{
		what:    fmt.Sprintf("ask for the qdisc under %x", at.parent),
		message: unix.RTM_GETQDISC,
		flags:   unix.NLM_F_ECHO,
		header:  nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(at.device), Handle: at.handle, Parent: at.parent},
	}
}

// requests asks a namespace's kernel side about qdiscs, over one socket, as many
// at a time as there are: the kernel takes messages one after another out of one packet.
// The netlink library knows netem by 32-bit ticks and tbf without exact bursts;
// these requests carry what the kernel takes.
type requests struct {
	mu     sync.Mutex // one packet is answered before the next is sent
	socket *nl.NetlinkSocket
	serial uint32
	buffer []byte // of what is heard
	packed []byte // of what is sent
}

// What goes in one packet: as much as a socket may send by default (net.core.wmem_default,
// 208 KiB) well holds, and no more questions than it can hold the answers to.
const (
	mostBytes     = 32 << 10
	mostQuestions = 32
)

func newRequests(ns *netns.Handle) (*requests, error) {
	socket, err := nl.GetNetlinkSocketAt(vnetns.NsHandle(ns.FD()), vnetns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Name(), err)
	}
	within := unix.NsecToTimeval(int64(answerWithin))
	err = errors.Join(
		socket.SetReceiveTimeout(&within),
		// A refusal says why (kernel 4.12), and does not repeat what was asked.
		unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
	)
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("prepare netlink in %s: %w", ns.Name(), err)
	}
	return &requests{socket: socket, buffer: make([]byte, 1<<16)}, nil
}

func (r *requests) close() { r.socket.Close() }

// answer is what the kernel said to one request.
type answer struct {
	message []byte // without its netlink header; nil where there is none
	err     error
}

// all does every request, in order, whether or not those before it failed.
func (r *requests) all(asked []request) ([]answer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answers := make([]answer, 0, len(asked))
	for len(asked) > 0 {
		some, err := r.packet(asked)
		if err != nil {
			return nil, err
		}
		answers = append(answers, some...)
		asked = asked[len(some):]
	}
	return answers, nil
}

// each does the requests and returns the first failure.
func (r *requests) each(asked ...request) ([][]byte, error) {
	answers, err := r.all(asked)
	if err != nil {
		return nil, err
	}
	messages := make([][]byte, len(answers))
	for i, a := range answers {
		if a.err != nil {
			return nil, a.err
		}
		messages[i] = a.message
	}
	return messages, nil
}

// do does one request.
func (r *requests) do(asked request) error {
	_, err := r.each(asked)
	return err
}

// get asks for the qdisc at a position.
func (r *requests) get(at position) (state, error) {
	asked := asking(at)
	messages, err := r.each(asked)
	if err != nil {
		return state{}, err
	}
	if messages[0] == nil {
		return state{}, fmt.Errorf("%s: no answer", asked.what)
	}
	return parseState(messages[0])
}

// list asks for all that there are of something: each is one message.
func (r *requests) list(asked request) ([][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serial++
	ask := nl.NetlinkRequest{NlMsghdr: unix.NlMsghdr{
		Type: asked.message, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP, Seq: r.serial,
	}}
	ask.AddData(&asked.header)
	if err := unix.Sendto(r.socket.GetFd(), ask.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("%s: %w", asked.what, err)
	}
	var all [][]byte
	for done := false; !done; {
		err := r.hear(func(kind, flags uint16, serial uint32, payload []byte) error {
			switch {
			case serial != r.serial:
				return nil
			case kind == unix.NLMSG_DONE:
				done = true
				return nil
			case kind == unix.NLMSG_ERROR:
				return acknowledged(flags, payload)
			}
			all = append(all, append([]byte(nil), payload...))
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", asked.what, err)
		}
	}
	return all, nil
}

// hear waits for one packet and hands on its messages.
func (r *requests) hear(to func(kind, flags uint16, serial uint32, payload []byte) error) error {
	for {
		n, _, err := unix.Recvfrom(r.socket.GetFd(), r.buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("hear the kernel: %w", err)
		}
		return messages(r.buffer[:n], to)
	}
}

// packet sends as many requests as go at once, and waits until the kernel has done the last: it tells of each that it
// refuses, and of the last in any case.
func (r *requests) packet(asked []request) ([]answer, error) {
	packet := r.packed[:0]
	first := r.serial + 1
	last, questions, n := 0, 0, 0
	for n < len(asked) && len(packet) < mostBytes && questions < mostQuestions {
		r.serial++
		last = len(packet)
		packet = asked[n].encode(packet, r.serial)
		if asked[n].message == unix.RTM_GETQDISC {
			questions++
		}
		n++
	}
	flags := binary.NativeEndian.Uint16(packet[last+6:])
	binary.NativeEndian.PutUint16(packet[last+6:], flags|unix.NLM_F_ACK)
	r.packed = packet
	if err := unix.Sendto(r.socket.GetFd(), packet, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask the kernel about qdiscs: %w", err)
	}
	answers := make([]answer, n)
	for done := false; !done; {
		err := r.hear(func(kind, flags uint16, serial uint32, payload []byte) error {
			i := int(serial - first)
			if i < 0 || i >= n {
				return nil // a late answer to a request that was given up
			}
			if kind != unix.NLMSG_ERROR {
				answers[i].message = append([]byte(nil), payload...)
				return nil
			}
			done = i == n-1
			if err := acknowledged(flags, payload); err != nil {
				answers[i].err = fmt.Errorf("%s: %w", asked[i].what, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// encode appends the request's message.
func (a request) encode(to []byte, serial uint32) []byte {
	begin := len(to)
	to = append(to, make([]byte, unix.SizeofNlMsghdr)...)
	to = append(to, a.header.Serialize()...)
	for _, attr := range a.attrs {
		to = append(to, attr.Serialize()...)
		to = append(to, make([]byte, -len(to)&3)...)
	}
	header := to[begin:]
	binary.NativeEndian.PutUint32(header, uint32(len(to)-begin))
	binary.NativeEndian.PutUint16(header[4:], a.message)
	binary.NativeEndian.PutUint16(header[6:], unix.NLM_F_REQUEST|a.flags)
	binary.NativeEndian.PutUint32(header[8:], serial)
	return to
}

// messages hands on each netlink message of a packet.
func messages(packet []byte, to func(kind, flags uint16, serial uint32, payload []byte) error) error {
	for len(packet) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(packet))
		if length < unix.SizeofNlMsghdr || length > len(packet) {
			return fmt.Errorf("a netlink message of %d bytes where %d are left", length, len(packet))
		}
		err := to(binary.NativeEndian.Uint16(packet[4:]), binary.NativeEndian.Uint16(packet[6:]),
			binary.NativeEndian.Uint32(packet[8:]), packet[unix.SizeofNlMsghdr:length])
		if err != nil {
			return err
		}
		packet = packet[min((length+3)&^3, len(packet)):]
	}
	return nil
}

// acknowledged is what an NLMSG_ERROR says: nil for 0. The kernel's own words, where it
// has some, are the attribute NLMSGERR_ATTR_MSG behind the header of what was asked.
func acknowledged(flags uint16, payload []byte) error {
	const words = 1 // NLMSGERR_ATTR_MSG
	if len(payload) < 4 {
		return errors.New("the kernel's acknowledgement has no result")
	}
	errno := -int32(binary.NativeEndian.Uint32(payload))
	if errno == 0 {
		return nil
	}
	err := error(unix.Errno(errno))
	behind := 4 + unix.SizeofNlMsghdr
	if flags&unix.NLM_F_CAPPED == 0 && len(payload) >= behind {
		behind = 4 + int(binary.NativeEndian.Uint32(payload[4:])+3)&^3
	}
	if flags&unix.NLM_F_ACK_TLVS == 0 || len(payload) < behind {
		return err
	}
	attrs, bad := attributes(payload[behind:])
	if text := attrs[words]; bad == nil && len(text) > 1 {
		return fmt.Errorf("%s: %w", text[:len(text)-1], err)
	}
	return err
}

// state is a qdisc as the kernel tells of it.
type state struct {
	kind     string
	options  []byte
	sent     uint64 // frames that left it
	drops    uint64 // frames that it, or a qdisc below it, dropped
	requeues uint64 // frames that it put back to its head
	waiting  int    // frames in it and below it
	backlog  int    // bytes of these
	own      []byte // statistics that only its kind has (TCA_STATS_APP)
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
	if queue := stats[nl.TCA_STATS_QUEUE]; len(queue) >= 16 { // struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits
		s.waiting = int(binary.NativeEndian.Uint32(queue))
		s.backlog = int(binary.NativeEndian.Uint32(queue[4:]))
		s.drops = uint64(binary.NativeEndian.Uint32(queue[8:]))
		s.requeues = uint64(binary.NativeEndian.Uint32(queue[12:]))
	}
	s.own = stats[nl.TCA_STATS_APP]
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

// fixed32 is a netlink attribute's 32-bit numbers, of which there are at least n.
func fixed32(of string, b []byte, n int) ([]uint32, error) {
	if len(b) < 4*n {
		return nil, fmt.Errorf("%s has %d bytes, want at least %d", of, len(b), 4*n)
	}
	numbers := make([]uint32, len(b)/4)
	for i := range numbers {
		numbers[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return numbers, nil
}
