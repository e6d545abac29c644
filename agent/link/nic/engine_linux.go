package nic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/agent/link"
)

// maxMTU is the longest IP packet of a link, in bytes: what a TAP takes
// (drivers/net/tun.c, MAX_MTU). The loopback interface's are longer.
const maxMTU = 65_521

// Way says which packets a link shapes.
type Way struct {
	End   int        // 0 or 1: which end of the link is the host; its port names the interface
	Match link.Match // the other end's side of the packets: address and port
}

// Engine makes links at a host's interface, of another engine's making. It makes one
// link's worth of decisions: the way is its own.
type Engine struct {
	host  *Host
	inner link.Engine
	way   Way
}

var _ link.Engine = (*Engine)(nil)

// Engine is an engine for one link of this host.
func (h *Host) Engine(inner link.Engine, w Way) *Engine {
	return &Engine{host: h, inner: inner, way: w}
}

// Name is the inner engine's.
func (e *Engine) Name() string { return e.inner.Name() }

// Check says why the link cannot be: because of its match, the interface, the
// host's policy, the kernel, or the inner engine.
func (e *Engine) Check(spec link.Spec) error {
	p, err := e.host.prepare(spec, e.way, "")
	if err != nil {
		return err
	}
	return e.inner.Check(p.spec)
}

// Check says why no engine can make the link: because of its match, the interface, the
// host's policy or the kernel.
func (h *Host) Check(spec link.Spec, w Way) error {
	_, err := h.prepare(spec, w, "")
	return err
}

// plan is what a link will be.
type plan struct {
	iface facts
	hooks Hooks
	spec  link.Spec // of the inner link
	ends  devices
}

func (h *Host) prepare(spec link.Spec, w Way, tag string) (plan, error) {
	p := plan{ends: devices{near: "tcplab" + tag + "n", far: "tcplab" + tag + "f"}}
	host := spec.Ends[w.End]
	if err := check(w.Match, h.kept()); err != nil {
		return p, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	var err error
	if p.iface, err = h.find(host.Name); err != nil {
		return p, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	if p.iface.Loopback {
		if err := h.space.Do(func() error { return checkLoopback(w.Match) }); err != nil {
			return p, fmt.Errorf("link %s: %w", spec.Name, err)
		}
	}
	if p.hooks, err = h.Capable(); err != nil {
		return p, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	mtu := p.iface.mtu
	if mtu > maxMTU {
		if !host.Plain {
			return p, fmt.Errorf("link %s: packets of %s have up to %d bytes, and a link's %d: keep offloads (offload: true), or lower the interface's MTU", spec.Name, p.iface.Name, mtu, maxMTU)
		}
		mtu = maxMTU
	}
	p.spec = link.Spec{Name: spec.Name}
	for i, name := range []string{p.ends.near, p.ends.far} {
		p.spec.Ends[i] = link.Port{
			Node: h.space, Name: name, MTU: mtu, Plain: host.Plain,
			MAC: net.HardwareAddr{2, 't', 'c', byte(rand.Uint32()), byte(rand.Uint32()), byte(i)},
		}
		// From the host on comes first.
		p.spec.Directions[i] = spec.Directions[w.End^i]
	}
	return p, nil
}

// localSettings are those of net.ipv4.conf under which a packet of the loopback
// interface that has lost its route is taken for what it is and not for a forged one
// (net/ipv4/route.c, ip_route_input_slow; fib_frontend.c, fib_validate_source).
func localSettings() []string { return []string{"accept_local", "route_localnet"} }

// checkLoopback refuses what cannot work on the loopback interface of this thread's
// namespace.
func checkLoopback(m link.Match) error {
	if m.Port == 0 {
		return errors.New("on the loopback interface each packet is both sent and received: give the match a port, so that it is shaped once")
	}
	if m.Destination.IsValid() && m.Destination.Addr().Is6() {
		return nil
	}
	for _, name := range localSettings() {
		on := false
		for _, scope := range []string{"all", "lo"} {
			value, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", scope, name))
			if err != nil {
				return fmt.Errorf("find out what the loopback interface takes: %w", err)
			}
			on = on || strings.TrimSpace(string(value)) != "0"
		}
		if !on {
			return fmt.Errorf("IPv4 packets that have left the loopback interface come back to it only with net.ipv4.conf.lo.accept_local and net.ipv4.conf.lo.route_localnet: "+
				"this host has %s off; its owner can set it (sysctl -w net.ipv4.conf.lo.%s=1)", name, name)
		}
	}
	return nil
}

// Create makes the link in the host's namespace, hangs the programs at the interface,
// and turns the diversion on. The link is a *[Link].
func (e *Engine) Create(ctx context.Context, spec link.Spec) (_ link.Link, err error) {
	tag := fmt.Sprintf("%06x", rand.Uint32N(1<<24))
	p, err := e.host.prepare(spec, e.way, tag)
	if err == nil {
		err = e.inner.Check(p.spec)
	}
	if err != nil {
		return nil, err
	}
	l := &Link{
		spec: p.spec, end: e.way.End, host: e.host,
		divert: &divert{host: e.host, iface: p.iface, match: e.way.Match, tag: tag},
	}
	e.host.mu.Lock()
	defer e.host.mu.Unlock()
	for _, other := range e.host.links {
		if other.divert.iface.index == p.iface.index && overlap(other.divert.match, e.way.Match) {
			return nil, fmt.Errorf("link %s: packets of %s would be shaped by link %s too: (%s) and (%s) overlap", spec.Name, p.iface.Name, other.spec.Name, describe(e.way.Match), describe(other.divert.match))
		}
	}
	if l.inner, err = e.inner.Create(ctx, p.spec); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.dismantle())
		}
	}()
	if err := e.host.space.Do(func() error { return errors.Join(mute(p.ends.near), mute(p.ends.far)) }); err != nil {
		return nil, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	e.host.o.Step("made: link")
	inode, err := e.host.space.Inode()
	if err != nil {
		return nil, err
	}
	if p.hooks == Clsact {
		if err := e.host.guarded(); err != nil {
			return nil, fmt.Errorf("link %s: %w", spec.Name, err)
		}
	}
	l.divert.journal, err = guard.OpenJournal(guard.JournalOptions{
		Dir: e.host.o.Journals, Name: p.iface.Name + "-" + tag, Namespace: inode,
		About: fmt.Sprintf("link %s shapes (%s) on %s", spec.Name, describe(e.way.Match), p.iface.Name),
	})
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	if err := l.divert.hang(p.ends, p.hooks); err != nil {
		return nil, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	if err := l.divert.turn(true); err != nil {
		return nil, fmt.Errorf("link %s: %w", spec.Name, err)
	}
	e.host.o.Step("turned on")
	e.host.links = append(e.host.links, l)
	l.watch()
	return l, nil
}

// mute keeps the kernel from speaking IPv6 on an interface of this thread's namespace.
func mute(name string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"), []byte("1"), 0) //nolint:gosec // it is there, or is not needed
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("switch IPv6 off on %s: %w", name, err)
	}
	return nil
}

// Close leaves the inner engine to its owner.
func (e *Engine) Close() error { return nil }
