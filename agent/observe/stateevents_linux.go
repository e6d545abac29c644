package observe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// stateEvents has the kernel tell of each change of state of the TCP sockets of some namespaces. It is an eBPF program
// at the root of the cgroups that this process sees, which the kernel asks about connections (BPF_PROG_TYPE_SOCK_OPS);
// of others than those namespaces' it asks for nothing. All of it ends with its descriptors.
type stateEvents struct {
	nodes   *ebpf.Map // from a namespace's cookie to the node's number
	events  *ebpf.Map // the ring
	lost    *ebpf.Map // key 0: events for which the ring had no room
	program *ebpf.Program
	hook    link.Link
	reader  *ringbuf.Reader
	zero    time.Time // when the clock of events was 0
}

// stateEvent is a change as the program writes it.
type stateEvent struct {
	node     uint32
	old, new uint32
	socket   Socket // addresses and cookie
	at       time.Time
}

// The callbacks and flags of sock_ops (include/uapi/linux/bpf.h), and where struct bpf_sock_ops has what.
const (
	onTimeoutInit = 1  // BPF_SOCK_OPS_TIMEOUT_INIT: of a request, when its SYN is answered
	onConnect     = 3  // BPF_SOCK_OPS_TCP_CONNECT_CB: before the SYN
	onAccepted    = 5  // BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
	onState       = 10 // BPF_SOCK_OPS_STATE_CB
	onListen      = 11 // BPF_SOCK_OPS_TCP_LISTEN_CB

	tellStates = 1 << 2 // BPF_SOCK_OPS_STATE_CB_FLAG

	opsOp, opsOld, opsNew, opsFamily     = 0, 4, 8, 20
	opsRemote4, opsLocal4                = 24, 28
	opsRemote6, opsLocal6                = 32, 48
	opsRemotePort, opsLocalPort, opsFull = 64, 68, 72
	opsFlags                             = 84
)

// Where the event stands on the program's stack, and in the ring.
const (
	eventSize                                                                                      = 72
	atTime, atCookie, atNode, atOld, atNew, atFamily, atLocalPort, atRemotePort, atLocal, atRemote = 0, 8, 16, 20, 24, 28, 32, 36, 40, 56

	ringSize = 1 << 20 // 13,000 events
)

// errNoEvents says that states have to be looked at.
var errNoEvents = errors.New("the kernel does not tell of changes of state here")

// newStateEvents begins to listen to the namespaces' sockets; those that are there already tell only what they do
// when they are next accepted from. Where the kernel, or the process's privileges, do not allow it the error is errNoEvents.
func newStateEvents(nodes []*netns.Handle) (_ *stateEvents, err error) {
	e := &stateEvents{}
	defer func() {
		if err != nil {
			err = errors.Join(errNoEvents, err, e.close())
		}
	}()
	e.nodes, err = ebpf.NewMap(&ebpf.MapSpec{Name: "tcplab_nodes", Type: ebpf.Hash, KeySize: 8, ValueSize: 4, MaxEntries: uint32(max(1, len(nodes)))})
	if err != nil {
		return nil, fmt.Errorf("make a map of nodes: %w", err)
	}
	for i, ns := range nodes {
		cookie, err := namespaceCookie(ns)
		if err == nil {
			err = e.nodes.Put(cookie, uint32(i))
		}
		if err != nil {
			return nil, fmt.Errorf("enter node %s: %w", ns.Name(), err)
		}
	}
	e.events, err = ebpf.NewMap(&ebpf.MapSpec{Name: "tcplab_states", Type: ebpf.RingBuf, MaxEntries: ringSize})
	if err != nil {
		return nil, fmt.Errorf("make a ring: %w", err)
	}
	e.lost, err = ebpf.NewMap(&ebpf.MapSpec{Name: "tcplab_lost", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make a map of what is lost: %w", err)
	}
	e.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tcplab_states", Type: ebpf.SockOps, AttachType: ebpf.AttachCGroupSockOps, Instructions: e.instructions(),
	})
	if err != nil {
		return nil, fmt.Errorf("load the program that tells of states: %w", err)
	}
	if e.hook, err = hang(e.program); err != nil {
		return nil, err
	}
	if e.reader, err = ringbuf.NewReader(e.events); err != nil {
		return nil, fmt.Errorf("read the ring: %w", err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("read the clock: %w", err)
	}
	e.zero = time.Now().Add(-time.Duration(now.Nano()))
	return e, nil
}

// hang attaches the program at the root of the cgroups, by a mount of its own that nobody else sees.
func hang(program *ebpf.Program) (link.Link, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open the cgroups: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("find the cgroups: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount the cgroups: %w", err)
	}
	defer unix.Close(root)
	hook, err := link.AttachRawLink(link.RawLinkOptions{Target: root, Program: program, Attach: ebpf.AttachCGroupSockOps})
	if err != nil {
		return nil, fmt.Errorf("attach the program that tells of states: %w", err)
	}
	return hook, nil
}

// namespaceCookie numbers a namespace as programs know it (SO_NETNS_COOKIE, kernel 5.14).
func namespaceCookie(ns *netns.Handle) (cookie uint64, err error) {
	err = ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	return cookie, err
}

// instructions are the program: r6 is its context, r7 the callback's number, r8 the node's.
func (e *stateEvents) instructions() asm.Instructions {
	const base, key = -eventSize, -eventSize - 8 // on the stack
	at := func(field int) int16 { return int16(base + field) }
	constant := func(field int, value int64) asm.Instruction { return asm.StoreImm(asm.RFP, at(field), value, asm.Word) }
	copied := func(from int16, field int) asm.Instructions {
		return asm.Instructions{asm.LoadMem(asm.R1, asm.R6, from, asm.Word), asm.StoreMem(asm.RFP, at(field), asm.R1, asm.Word)}
	}
	program := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, opsOp, asm.Word),
		asm.JEq.Imm(asm.R7, onState, "ours?"),
		asm.JEq.Imm(asm.R7, onConnect, "ours?"),
		asm.JEq.Imm(asm.R7, onAccepted, "ours?"),
		asm.JEq.Imm(asm.R7, onListen, "ours?"),
		asm.JNE.Imm(asm.R7, onTimeoutInit, "end"),
		// Also a socket that connects is asked about its first timeout.
		asm.LoadMem(asm.R1, asm.R6, opsFull, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "end"),

		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("ours?"),
		asm.FnGetNetnsCookie.Call(),
		asm.StoreMem(asm.RFP, key, asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.LoadMapPtr(asm.R1, e.nodes.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.LoadMem(asm.R8, asm.R0, 0, asm.Word),

		asm.JEq.Imm(asm.R7, onState, "state"),
		asm.JEq.Imm(asm.R7, onTimeoutInit, "request"),
		// A full socket that begins: have it tell of what follows.
		asm.LoadMem(asm.R2, asm.R6, opsFlags, asm.Word),
		asm.Or.Imm(asm.R2, tellStates),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnSockOpsCbFlagsSet.Call(),
		asm.JEq.Imm(asm.R7, onAccepted, "end"), // its change to ESTABLISHED comes next
		constant(atOld, StateClose),
		constant(atNew, StateSynSent),
		asm.JEq.Imm(asm.R7, onConnect, "tell"),
		constant(atNew, StateListen),
		asm.Ja.Label("tell"),

		constant(atOld, StateClose).WithSymbol("request"),
		constant(atNew, StateSynReceived),
		asm.Ja.Label("tell"),

		asm.LoadMem(asm.R1, asm.R6, opsOld, asm.Word).WithSymbol("state"),
		asm.StoreMem(asm.RFP, at(atOld), asm.R1, asm.Word),
	}
	program = append(program, copied(opsNew, atNew)...)
	tell := asm.Instructions{
		asm.StoreMem(asm.RFP, at(atNode), asm.R8, asm.Word),
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.RFP, at(atTime), asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetSocketCookie.Call(),
		asm.StoreMem(asm.RFP, at(atCookie), asm.R0, asm.DWord),
	}
	tell[0] = tell[0].WithSymbol("tell")
	program = append(program, tell...)
	program = append(program, copied(opsLocalPort, atLocalPort)...)
	program = append(program, copied(opsRemotePort, atRemotePort)...)
	for word := range 4 {
		program = append(program, copied(int16(opsLocal6+4*word), atLocal+4*word)...)
		program = append(program, copied(int16(opsRemote6+4*word), atRemote+4*word)...)
	}
	program = append(program, copied(opsFamily, atFamily)...)
	program = append(program, asm.JNE.Imm(asm.R1, unix.AF_INET, "send"))
	program = append(program, copied(opsLocal4, atLocal)...)
	program = append(program, copied(opsRemote4, atRemote)...)
	return append(program,
		asm.LoadMapPtr(asm.R1, e.events.FD()).WithSymbol("send"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, base),
		asm.Mov.Imm(asm.R3, eventSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.StoreImm(asm.RFP, key, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.LoadMapPtr(asm.R1, e.lost.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("end"),
		asm.Return(),
	)
}

// errFlushed says that all events are read that there were when flush was called.
var errFlushed = ringbuf.ErrFlushed

// next waits for an event. After flush it returns errFlushed once; after close an error.
func (e *stateEvents) next(record *ringbuf.Record) (stateEvent, error) {
	if err := e.reader.ReadInto(record); err != nil {
		return stateEvent{}, err
	}
	return parseStateEvent(record.RawSample, e.zero)
}

// flush has next return what there is, and then errFlushed.
func (e *stateEvents) flush() error { return e.reader.Flush() }

// missing is how many events were lost.
func (e *stateEvents) missing() (lost uint64, err error) {
	if err := e.lost.Lookup(uint32(0), &lost); err != nil {
		return 0, fmt.Errorf("read how many changes of state were lost: %w", err)
	}
	return lost, nil
}

// parseStateEvent reads an event; zero is the time at which its clock was 0.
func parseStateEvent(raw []byte, zero time.Time) (stateEvent, error) {
	if len(raw) < eventSize {
		return stateEvent{}, fmt.Errorf("a change of state of %d bytes, want %d", len(raw), eventSize)
	}
	r := layout(raw)
	e := stateEvent{
		node: r.u32(atNode), old: r.u32(atOld), new: r.u32(atNew),
		at:     zero.Add(time.Duration(r.u64(atTime))),
		socket: Socket{Cookie: r.u64(atCookie), State: r.u32(atNew)},
	}
	address := func(field int) netip.Addr {
		if r.u32(atFamily) == ipv4 {
			return netip.AddrFrom4([4]byte(raw[field : field+4]))
		}
		return netip.AddrFrom16([16]byte(raw[field : field+16]))
	}
	// The remote port is in network order, in the upper half of the word where the machine's order is not that
	// (convert_ctx_access of sock_ops in net/core/filter.c).
	var port [4]byte
	binary.NativeEndian.PutUint32(port[:], r.u32(atRemotePort))
	remote := binary.BigEndian.Uint16(port[2:])
	e.socket.Local = netip.AddrPortFrom(address(atLocal), uint16(r.u32(atLocalPort)))
	e.socket.Remote = netip.AddrPortFrom(address(atRemote), remote)
	return e, nil
}

// close takes the program away. It may be called again.
func (e *stateEvents) close() error {
	var errs []error
	if e.reader != nil {
		errs = append(errs, e.reader.Close())
	}
	if e.hook != nil {
		errs = append(errs, e.hook.Close())
	}
	if e.program != nil {
		errs = append(errs, e.program.Close())
	}
	for _, m := range []*ebpf.Map{e.nodes, e.events, e.lost} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
