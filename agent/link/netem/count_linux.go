package netem

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
)

// Attributes of cls_bpf's options (include/uapi/linux/pkt_cls.h).
const (
	bpfFD     = 6 // TCA_BPF_FD
	bpfName   = 7 // TCA_BPF_NAME
	bpfFlags  = 8 // TCA_BPF_FLAGS
	bpfDirect = 1 // TCA_BPF_FLAG_ACT_DIRECT: what the program returns is what is done
)

// counter loses frames by their number, which netem cannot: listed ones, or every nth. It is an eBPF
// program that a prio above the tree asks about each frame, one at a time, under the lock
// of the port's qdiscs. The numbers stand in maps, so that
// what is in force can be read from the kernel; they end with the engine's descriptors and the qdisc.
type counter struct {
	numbers *ebpf.Map // key 0: see the fields of count
	listed  *ebpf.Map // keys are the numbers of frames to be lost; nil: none are listed
	program *ebpf.Program
}

// count is the value of the map of numbers.
type count struct {
	Seen  uint64 // frames
	Lost  uint64 // of these
	Every uint64 // which are lost; 0: the listed
}

// newCounter makes the program for a loss that counts.
func newCounter(l link.Loss) (_ *counter, err error) {
	c := &counter{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	c.numbers, err = ebpf.NewMap(&ebpf.MapSpec{Name: "tcplab_count", Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make a map of numbers: %w", err)
	}
	if err := c.numbers.Put(uint32(0), count{Every: l.Every}); err != nil {
		return nil, fmt.Errorf("set the numbers: %w", err)
	}
	if len(l.Packets) > 0 {
		c.listed, err = ebpf.NewMap(&ebpf.MapSpec{Name: "tcplab_listed", Type: ebpf.Hash, KeySize: 8, ValueSize: 4, MaxEntries: uint32(len(l.Packets))})
		if err != nil {
			return nil, fmt.Errorf("make a map of packets: %w", err)
		}
		for _, n := range l.Packets {
			if err := c.listed.Put(n, uint32(1)); err != nil {
				return nil, fmt.Errorf("list packet %d: %w", n, err)
			}
		}
	}
	c.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tcplab_count", Type: ebpf.SchedCLS, Instructions: c.instructions(l),
	})
	if err != nil {
		return nil, fmt.Errorf("load the program that counts packets: %w", err)
	}
	return c, nil
}

// instructions are the program: r6 is the map's value, r7 the number of the frame.
func (c *counter) instructions(l link.Loss) asm.Instructions {
	const unspecified, shot = -1, 2 // TC_ACT_UNSPEC: the next filter, of which there is none; TC_ACT_SHOT
	program := asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, c.numbers.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R6, asm.R0),
		asm.LoadMem(asm.R7, asm.R6, 0, asm.DWord),
		asm.Add.Imm(asm.R7, 1),
		asm.StoreMem(asm.R6, 0, asm.R7, asm.DWord),
	}
	if l.Every > 0 {
		program = append(program,
			asm.LoadMem(asm.R1, asm.R6, 16, asm.DWord),
			asm.JEq.Imm(asm.R1, 0, "pass"),
			asm.Mod.Reg(asm.R7, asm.R1),
			asm.JNE.Imm(asm.R7, 0, "pass"),
		)
	} else {
		program = append(program,
			asm.StoreMem(asm.RFP, -16, asm.R7, asm.DWord),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -16),
			asm.LoadMapPtr(asm.R1, c.listed.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "pass"),
		)
	}
	return append(program,
		asm.LoadMem(asm.R1, asm.R6, 8, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R6, 8, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, shot),
		asm.Return(),
		asm.Mov.Imm(asm.R0, unspecified).WithSymbol("pass"),
		asm.Return(),
	)
}

// to is the request that hangs the program at the qdisc at a position.
func (c *counter) to(at position) request {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(bpfFD, nl.Uint32Attr(uint32(c.program.FD())))
	options.AddRtAttr(bpfName, nl.ZeroTerminated("tcplab_count"))
	options.AddRtAttr(bpfFlags, nl.Uint32Attr(bpfDirect))
	return request{
		what:    "add the filter bpf",
		message: unix.RTM_NEWTFILTER,
		flags:   unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		header: nl.TcMsg{
			Family: nl.FAMILY_ALL, Ifindex: int32(at.device), Parent: at.handle,
			Info: 1<<16 | uint32(swap16(unix.ETH_P_ALL)),
		},
		attrs: []*nl.RtAttr{nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")), options},
	}
}

// loss is what is in force, from the kernel's maps.
func (c *counter) loss() (link.Loss, error) {
	var now count
	if err := c.numbers.Lookup(uint32(0), &now); err != nil {
		return link.Loss{}, fmt.Errorf("read the numbers of packets: %w", err)
	}
	l := link.Loss{Every: now.Every}
	if c.listed != nil {
		var n uint64
		var value uint32
		all := c.listed.Iterate()
		for all.Next(&n, &value) {
			l.Packets = append(l.Packets, n)
		}
		if err := all.Err(); err != nil {
			return link.Loss{}, fmt.Errorf("read the listed packets: %w", err)
		}
		slices.Sort(l.Packets)
	}
	return l, nil
}

// lost is how many frames it lost since the numbers began.
func (c *counter) lost() (uint64, error) {
	var now count
	if err := c.numbers.Lookup(uint32(0), &now); err != nil {
		return 0, fmt.Errorf("read the numbers of packets: %w", err)
	}
	return now.Lost, nil
}

// restart numbers the next frame 1.
func (c *counter) restart() error {
	var now count
	if err := c.numbers.Lookup(uint32(0), &now); err != nil {
		return fmt.Errorf("read the numbers of packets: %w", err)
	}
	if err := c.numbers.Put(uint32(0), count{Every: now.Every}); err != nil {
		return fmt.Errorf("restart the numbers of packets: %w", err)
	}
	return nil
}

func (c *counter) close() error {
	if c == nil {
		return nil
	}
	var errs []error
	if c.program != nil {
		errs = append(errs, c.program.Close())
	}
	if c.listed != nil {
		errs = append(errs, c.listed.Close())
	}
	if c.numbers != nil {
		errs = append(errs, c.numbers.Close())
	}
	return errors.Join(errs...)
}

// counts reports whether a loss is one that a counter has to see to.
func counts(l link.Loss) bool { return len(l.Packets) > 0 || l.Every > 0 }
