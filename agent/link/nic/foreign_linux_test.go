package nic

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"
	tcx "github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/policy"
)

// others hangs a filter of another program at eth1.
func (b *bed) others(t *testing.T, priority uint16) {
	t.Helper()
	err := b.host.Do(func() error {
		return netlink.FilterAdd(&netlink.U32{FilterAttrs: netlink.FilterAttrs{
			LinkIndex: b.index, Parent: parent(sent), Priority: priority, Protocol: 3, // ETH_P_ALL
		}, ClassId: 1})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A filter that another program hangs in tcplab's qdisc stays, and so does the qdisc.
func TestForeignFilterIsLeft(t *testing.T) {
	b := newBed(t)
	host := b.shaper(t, Options{Hooks: Clsact})
	var log bytes.Buffer
	host.o.Log = slog.New(slog.NewTextHandler(&log, nil))
	made, err := host.Engine(inner(t, "wire"), Way{Match: shapedMatch()}).Create(t.Context(), spec(0))
	if err != nil {
		t.Fatal(err)
	}
	b.others(t, 7)
	if err := made.Close(); err != nil {
		t.Fatal(err)
	}
	left := b.control(t)
	if !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, "filter u32 where it sends, priority 7") }) {
		t.Errorf("the other's filter is gone: %q", left)
	}
	if slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, "filter bpf") }) {
		t.Errorf("tcplab's own is left: %q", left)
	}
	if !strings.Contains(log.String(), "filters of another program") {
		t.Errorf("nothing is said of it: %s", log.String())
	}
}

// What another program has put in the place of a filter is not taken for it, neither by the
// link nor by a rollback.
func TestForeignFilterInPlace(t *testing.T) {
	b := newBed(t)
	host := b.shaper(t, Options{Hooks: Clsact})
	made, err := host.Engine(inner(t, "wire"), Way{Match: shapedMatch()}).Create(t.Context(), spec(0))
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	var ours identity
	for _, h := range made.(*Link).divert.hung {
		if f, ok := h.hook.(*filterHook); ok && f.parent == parent(sent) {
			ours = f.identity
		}
	}
	program, err := loadProgram("another", asm.Instructions{asm.Mov.Imm(asm.R0, answerNext), asm.Return()})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	err = b.host.Do(func() error {
		if _, err := removeFilter(ours); err != nil {
			return err
		}
		return addFilter(newFilter(b.index, sent, ours.priority, ours.name, program))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := made.Counters(); err == nil || !strings.Contains(err.Error(), "in the place of ours") {
		t.Errorf("Counters: %v", err)
	}
	var log bytes.Buffer
	err = b.host.Do(func() error {
		return Undo([]guard.Change{{
			Kind: kindFilter, Interface: "eth1", Index: b.index, Parent: ours.parent, Priority: ours.priority,
			Handle: ours.handle, Program: ours.program, Name: ours.name,
		}}, slog.New(slog.NewTextHandler(&log, nil)))
	})
	if err != nil || !strings.Contains(log.String(), "another program's filter") {
		t.Errorf("Undo: %v; it says %q", err, log.String())
	}
	there, same, err := func() (f netlink.Filter, same bool, err error) {
		err = b.host.Do(func() error {
			f, same, err = filterAt(ours)
			return err
		})
		return f, same, err
	}()
	if err != nil || there == nil || same {
		t.Errorf("the other's filter: %v, taken for ours %v, %v", there, same, err)
	}
}

// Where another program's filters are, tcplab's come before them, or not at all.
func TestForeignComesFirst(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(b *bed, t *testing.T)
		want    string
	}{
		"a later filter": {func(b *bed, t *testing.T) {
			if err := b.host.Do(func() error { return addClsact(b.index) }); err != nil {
				t.Fatal(err)
			}
			b.others(t, 2)
		}, ""},
		"the first filter": {func(b *bed, t *testing.T) {
			if err := b.host.Do(func() error { return addClsact(b.index) }); err != nil {
				t.Fatal(err)
			}
			b.others(t, 1)
		}, "first priority"},
		"an ingress qdisc": {func(b *bed, t *testing.T) {
			err := b.host.Do(func() error {
				attrs := clsactAttrs(b.index)
				attrs.Parent = netlink.HANDLE_INGRESS
				return netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: attrs})
			})
			if err != nil {
				t.Fatal(err)
			}
		}, "in the place of clsact"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			test.prepare(b, t)
			before := b.control(t)
			host := b.shaper(t, Options{Hooks: Clsact})
			made, err := host.Engine(inner(t, "wire"), Way{Match: shapedMatch()}).Create(t.Context(), spec(0))
			if test.want == "" && err == nil {
				err = made.Close()
			} else if test.want != "" && err != nil && strings.Contains(err.Error(), test.want) {
				err = nil
			}
			if err != nil {
				t.Errorf("Create: %v, want %q", err, test.want)
			}
			if after := b.control(t); !slices.Equal(before, after) {
				t.Errorf("the interface had %q and has %q", before, after)
			}
		})
	}
}

// A program that somebody detaches is missed, and packets pass by the link from then on.
func TestDetachedByAnother(t *testing.T) {
	b := newBed(t)
	b.echo(t, shapedPort)
	made, err := b.shaper(t, Options{Hooks: TCX}).Engine(inner(t, "wire"), Way{Match: shapedMatch()}).Create(t.Context(), spec(killedDelay))
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	hook := made.(*Link).divert.hung[0].hook.(*tcxHook)
	info, err := hook.link.Info()
	if err != nil {
		t.Fatal(err)
	}
	other, err := tcx.NewFromID(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Detach(); err != nil {
		t.Fatal(err)
	}
	if _, err := made.ReadBack(); err == nil || !strings.Contains(err.Error(), "detached") {
		t.Errorf("ReadBack: %v", err)
	}
	if took := b.caller(t, worldAddress, shapedPort).least(t, 2); took >= killedDelay {
		t.Errorf("a round trip takes %v", took)
	}
}

// A link that has failed swallows nothing: packets pass by it.
func TestFailedLink(t *testing.T) {
	b := newBed(t)
	b.echo(t, shapedPort)
	made, err := b.shaper(t, Options{}).Engine(inner(t, "wire"), Way{Match: shapedMatch()}).Create(t.Context(), spec(killedDelay))
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	err = b.host.Do(func() error {
		near, err := netlink.LinkByName(made.(*Link).spec.Ends[0].Name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(near)
	})
	if err != nil {
		t.Fatal(err)
	}
	// Nobody asks it: its own watch finds out.
	c := b.caller(t, worldAddress, shapedPort)
	for begin := time.Now(); ; {
		took, err := c.roundTrip(100*time.Millisecond, 100)
		if err == nil && took < killedDelay {
			break
		}
		if time.Since(begin) > within+watchEvery {
			t.Fatalf("%v after the link failed: %v, %v", time.Since(begin), took, err)
		}
	}
}

// Two links of an interface share what hangs there, whichever goes first; packets that
// both would shape are refused.
func TestTwoLinks(t *testing.T) {
	for _, hooks := range []Hooks{TCX, Clsact} {
		t.Run(string(hooks), func(t *testing.T) {
			b := newBed(t)
			before := b.control(t)
			host := b.shaper(t, Options{Hooks: hooks})
			engine := inner(t, "wire")
			make2 := func(m link.Match) (link.Link, error) {
				return host.Engine(engine, Way{Match: m}).Create(t.Context(), spec(0))
			}
			one, err := make2(link.Match{Protocol: link.TCP})
			if err != nil {
				t.Fatal(err)
			}
			two, err := make2(shapedMatch())
			if err != nil {
				t.Fatal(err)
			}
			if l, err := make2(link.Match{Protocol: link.TCP, Port: 80}); err == nil || !strings.Contains(err.Error(), "overlap") {
				t.Errorf("a third that overlaps: %v, %v", l, err)
			}
			if err := errors.Join(one.Close(), two.Close()); err != nil {
				t.Fatal(err)
			}
			if after := b.control(t); !slices.Equal(before, after) {
				t.Errorf("the interface had %q and has %q", before, after)
			}
		})
	}
}

// The interface of the default route, and the loopback, are shaped where the
// host's own policy permits it.
func TestPolicy(t *testing.T) {
	b := newBed(t)
	err := b.host.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{LinkIndex: b.index, Gw: []byte{192, 0, 2, 2}, Table: 99})
	})
	if err != nil {
		t.Fatal(err)
	}
	engine := inner(t, "wire")
	loopback := spec(30 * time.Millisecond)
	loopback.Ends[0] = link.Port{Name: "lo", Plain: true}
	loopbackMatch := link.Match{Destination: netip.MustParsePrefix("::1/128"), Protocol: link.UDP, Port: shapedPort}
	for name, test := range map[string]struct {
		policy policy.Policy
		spec   link.Spec
		want   string
	}{
		"the default route":           {policy.Policy{}, spec(0), "interfaces.default_route"},
		"the default route, allowed":  {policy.Policy{DefaultRoute: true}, spec(0), ""},
		"not on the list":             {policy.Policy{DefaultRoute: true, Only: []string{"eth2"}}, spec(0), "interfaces.only"},
		"the loopback":                {policy.Policy{DefaultRoute: true}, loopback, "interfaces.loopback"},
		"the loopback, allowed":       {policy.Policy{Loopback: true}, loopback, ""},
		"what the policy never gives": {policy.Policy{DefaultRoute: true, Never: []link.Match{{Protocol: link.UDP}}}, spec(0), "never shaped"},
	} {
		t.Run(name, func(t *testing.T) {
			match := shapedMatch()
			if test.spec.Ends[0].Name == "lo" {
				match = loopbackMatch
			}
			made, err := b.shaper(t, Options{Policy: test.policy}).Engine(engine, Way{Match: match}).Create(t.Context(), test.spec)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("Create: %v, want %q in it", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := made.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// On the loopback interface a packet is shaped once each way.
func TestLoopback(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::1"} {
		t.Run(address, func(t *testing.T) {
			b := newBed(t)
			b.world = b.host
			b.echo(t, shapedPort)
			c := b.caller(t, address, shapedPort)
			s := spec(30 * time.Millisecond)
			s.Ends[0] = link.Port{Name: "lo", Plain: true}
			to := netip.MustParseAddr(address)
			e := b.shaper(t, Options{Policy: policy.Policy{Loopback: true}}).Engine(inner(t, "wire"), Way{
				Match: link.Match{Destination: netip.PrefixFrom(to, to.BitLen()), Protocol: link.UDP, Port: shapedPort},
			})
			if to.Is4() {
				if err := e.Check(s); err == nil || !strings.Contains(err.Error(), "net.ipv4.conf.lo.accept_local") {
					t.Errorf("Check: %v", err)
				}
				err := b.host.Do(func() error {
					var errs []error
					for _, name := range localSettings() {
						errs = append(errs, os.WriteFile("/proc/sys/net/ipv4/conf/lo/"+name, []byte("1"), 0o644))
					}
					return errors.Join(errs...)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			made, err := e.Create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			defer made.Close()
			if took := c.least(t, 3); took < 60*time.Millisecond || took >= 120*time.Millisecond {
				t.Errorf("a round trip takes %v, want 60 ms", took)
			}
		})
	}
}
