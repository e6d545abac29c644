package nic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/policy"
	"github.com/tcplab/tcplab/internal/netns"
	"github.com/tcplab/tcplab/internal/rpcerr"
)

// Hooks is how programs are attached to a host's interface.
type Hooks string

// The ways to attach.
const (
	Auto   Hooks = ""       // TCX where the kernel has it, else Clsact
	TCX    Hooks = "tcx"    // kernel 6.6: undone by the kernel when this process ends
	Clsact Hooks = "clsact" // before: undone by the watchdog
)

// Options say how a host's own interfaces are shaped.
type Options struct {
	// Policy is what the host's owner permits.
	Policy policy.Policy
	// Management is traffic to the controller, which is never shaped: its addresses and ports.
	Management []link.Match
	// Journals is the folder of the journals.
	Journals string
	// Watchdog is the command that is the watchdog, as guard.WatchdogOptions has it;
	// empty: none, and interfaces of a kernel without TCX are not shaped.
	Watchdog guard.WatchdogOptions
	// Namespace is the one to shape in; nil: this process's.
	Namespace *netns.Handle
	// Hooks is how to attach; the default takes what the kernel has.
	Hooks Hooks
	// Step is called before and after each change of the host's interface, with what it
	// is; nil: nobody is told.
	Step func(step string)
	// Log takes what nobody asked for; nil: nothing.
	Log *slog.Logger
}

// Host is a host's own network stack, as far as labs shape it. It is safe for
// concurrent use.
type Host struct {
	o     Options
	space *netns.Handle
	own   bool // space is the host's to close

	probe sync.Once
	hooks Hooks
	lacks error // why there is no way to attach

	mu       sync.Mutex
	closed   bool
	watchdog *guard.Watchdog
	links    []*Link
	made     map[int]bool // interfaces at which this process made a clsact qdisc
}

// NewHost looks at the host. Nothing is changed before the first link.
func NewHost(o Options) (*Host, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	h := &Host{o: o, space: o.Namespace, made: make(map[int]bool)}
	if h.space == nil {
		space, err := netns.Current()
		if err != nil {
			return nil, err
		}
		h.space, h.own = space, true
	}
	return h, nil
}

// Recover undoes what an agent that died has left. It is called once, before the
// first link.
func (h *Host) Recover(ctx context.Context) error {
	inode, err := h.space.Inode()
	if err != nil {
		return err
	}
	return guard.Rollback(ctx, guard.RollbackOptions{
		Dir: h.o.Journals, Namespace: inode, Log: h.o.Log,
		Undo: func(changes []guard.Change) error {
			return h.space.Do(func() error { return Undo(changes, h.o.Log) })
		},
	})
}

// Close ends what the links shared, after all of them were closed.
func (h *Host) Close() error {
	h.mu.Lock()
	watchdog := h.watchdog
	h.watchdog, h.closed = nil, true
	h.mu.Unlock()
	var err error
	if watchdog != nil {
		err = watchdog.Close()
	}
	if h.own {
		err = errors.Join(err, h.space.Close())
	}
	return err
}

// kept is all that is never shaped, beside what no host needs to be told.
func (h *Host) kept() []link.Match {
	return slices.Concat(h.o.Management, h.o.Policy.Never)
}

// guarded sees to it that a watchdog runs. The caller holds mu.
func (h *Host) guarded() error {
	if h.watchdog != nil {
		return nil
	}
	o := h.o.Watchdog
	o.Dir = h.o.Journals
	o.Lost = h.unguarded
	// In the namespace whose interfaces it is to restore.
	return h.space.Do(func() error {
		w, err := guard.StartWatchdog(o)
		if err != nil {
			return fmt.Errorf("without a watchdog no change of a host's interface would be undone after kill -9: %w", err)
		}
		h.watchdog = w
		return nil
	})
}

// unguarded starts another watchdog for one that was killed.
func (h *Host) unguarded(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.watchdog = nil
	h.o.Log.Warn("starting another watchdog", "error", why)
	err := h.guarded()
	if err == nil {
		return
	}
	h.o.Log.Error("there is no watchdog: the host's interfaces are shaped no more", "error", err)
	for _, l := range h.links {
		if err := l.divert.turn(false); err != nil {
			h.o.Log.Error("stop shaping", "link", l.spec.Name, "error", err)
		}
	}
}

// Capable finds the way to attach programs here, TCX or Clsact, by trying it in a namespace
// that ends with the trial; or says why there is none.
func (h *Host) Capable() (Hooks, error) {
	h.probe.Do(func() {
		asked := h.o.Hooks
		space, err := netns.New("probe")
		if err != nil {
			h.lacks = fmt.Errorf("find out how programs are attached: %w", err)
			return
		}
		defer space.Close()
		none := asm.Instructions{asm.Mov.Imm(asm.R0, answerNext), asm.Return()}
		program, err := loadProgram("tcplab_probe", none)
		if err != nil {
			h.lacks = refused(err)
			return
		}
		defer program.Close()
		const loopback = 1 // in every namespace
		if asked != Clsact {
			err := space.Do(func() error {
				attached, err := attachTCX(loopback, sent, program)
				if err != nil {
					return err
				}
				return attached.Close()
			})
			if err == nil || asked == TCX {
				h.hooks, h.lacks = TCX, refused(err)
				return
			}
		}
		err = space.Do(func() error {
			if err := addClsact(loopback); err != nil {
				return err
			}
			return addFilter(newFilter(loopback, sent, 1, "tcplab_probe", program))
		})
		h.hooks, h.lacks = Clsact, refused(err)
		if err == nil && len(h.o.Watchdog.Command) == 0 {
			h.lacks = rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "Take kernel 6.6 or later, where the kernel itself undoes what a killed agent leaves.",
				"a host's interface on this kernel needs a watchdog, which this program cannot start")
		}
	})
	return h.hooks, h.lacks
}

// refused says what shaping a host's interface takes.
func refused(err error) error {
	if err == nil {
		return nil
	}
	remedy := "Run as root of the host, not of a user namespace or a container without CAP_BPF; take kernel 6.6 or later, or load the modules sch_ingress and cls_bpf."
	if errors.Is(err, ebpf.ErrNotSupported) {
		remedy = "Take kernel 6.6 or later, or load the modules sch_ingress and cls_bpf."
	}
	return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, remedy, "this host's interfaces cannot be shaped: %w", err)
}

// facts are what is to be known of an interface.
type facts struct {
	policy.Interface
	index int
	mtu   int
}

// find looks at an interface, and refuses one that cannot be shaped or must not.
func (h *Host) find(name string) (facts, error) {
	var f facts
	err := h.space.Do(func() error {
		device, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("this host has no interface %q: %w", name, err)
		}
		attrs := device.Attrs()
		f = facts{index: attrs.Index, mtu: attrs.MTU}
		f.Name = attrs.Name
		f.Loopback = attrs.RawFlags&unix.IFF_LOOPBACK != 0
		if attrs.EncapType != "ether" && !f.Loopback {
			return fmt.Errorf("interface %s carries %s frames, and only Ethernet's can be shaped", name, attrs.EncapType)
		}
		f.DefaultRoute, err = defaultRoute(attrs.Index)
		return err
	})
	if err != nil {
		return f, err
	}
	if err := h.o.Policy.Allow(f.Interface); err != nil {
		return f, rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "Nothing but that file changes it: docs/host-interfaces.md.", "%w", err)
	}
	return f, nil
}

// defaultRoute reports whether a default route of this thread's namespace leads
// through the interface: in any table, as one of several ways too.
func defaultRoute(index int) (bool, error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		// With a table of 0 and its mask, all tables.
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return false, fmt.Errorf("list the routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil {
				if ones, _ := r.Dst.Mask.Size(); ones != 0 {
					continue
				}
			}
			if r.LinkIndex == index || slices.ContainsFunc(r.MultiPath, func(n *netlink.NexthopInfo) bool { return n.LinkIndex == index }) {
				return true, nil
			}
		}
	}
	return false, nil
}
