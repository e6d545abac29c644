package nic

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/netem"
	"github.com/tcplab/tcplab/agent/link/wire"
	"github.com/tcplab/tcplab/internal/need"
)

// inner is an engine for links of these tests: wire, and netem where the kernel has it.
func inner(t testing.TB, name string) link.Engine {
	t.Helper()
	if name == "netem" {
		e := netem.New()
		if err := e.Check(spec(0)); err != nil {
			need.Missing(t, "netem", err.Error())
		}
		t.Cleanup(func() { e.Close() })
		return e
	}
	e, err := wire.New(wire.Options{})
	if err != nil {
		need.Missing(t, "tun", err.Error())
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// shaper is the host of a bed, as an agent has it, without a watchdog.
func (b *bed) shaper(t testing.TB, o Options) *Host {
	t.Helper()
	o.Namespace, o.Journals = b.host, t.TempDir()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	if len(o.Watchdog.Command) == 0 {
		o.Watchdog = watchdog(t)
	}
	h, err := NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := h.Capable(); err != nil {
		need.Missing(t, string(o.Hooks), err.Error())
	}
	return h
}

func TestLink(t *testing.T) {
	for _, engine := range []string{"wire", "netem"} {
		for _, hooks := range []Hooks{TCX, Clsact} {
			t.Run(engine+" by "+string(hooks), func(t *testing.T) {
				for _, end := range []int{0, 1} {
					testLink(t, inner(t, engine), hooks, end)
				}
			})
		}
	}
}

func testLink(t *testing.T, engine link.Engine, hooks Hooks, end int) {
	b := newBed(t)
	b.echo(t, shapedPort)
	b.echo(t, otherPort)
	shaped, other := b.caller(t, worldAddress, shapedPort), b.caller(t, worldAddress, otherPort)
	shaped6 := b.caller(t, "2001:db8::2", shapedPort)
	for _, c := range []*caller{shaped, other, shaped6} {
		c.least(t, 1) // neighbours are found
	}
	before := b.control(t)
	host := b.shaper(t, Options{Hooks: hooks})
	const there, back = 30 * time.Millisecond, 10 * time.Millisecond
	asked := spec(0)
	asked.Directions[end].Shape.Delay, asked.Directions[1-end].Shape.Delay = there, back
	asked.Ends[0], asked.Ends[1] = asked.Ends[end], asked.Ends[1-end]
	made, err := host.Engine(engine, Way{End: end, Match: shapedMatch()}).Create(t.Context(), asked)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	sentBefore := b.htbSent(t)
	for _, c := range []*caller{shaped, shaped6} {
		if took := c.least(t, 3); took < there+back || took > there+back+20*time.Millisecond {
			t.Errorf("%v: a round trip takes %v, want 40 ms", c.sock.RemoteAddr(), took)
		}
	}
	if took := other.least(t, 3); took > 8*time.Millisecond {
		t.Errorf("what the match does not select takes %v", took)
	}
	if got := b.htbSent(t) - sentBefore; got < 9 {
		t.Errorf("the owner's tree has seen %d packets of 9: what is shaped must go through it as well", got)
	}
	counters, err := made.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range counters {
		if c.Delivered != 6 || c.Failed != 0 || c.Lost != 0 {
			t.Errorf("direction %d has counted %+v, want 6 packets", i, c)
		}
	}
	read, err := made.ReadBack()
	if err != nil {
		t.Fatal(err)
	}
	if read[end].Shape.Delay != there || read[1-end].Shape.Delay != back {
		t.Errorf("read back: %v", read)
	}
	if err := made.Change(end, link.Direction{Shape: link.Shape{Delay: time.Millisecond}, Seed: 1}); err != nil {
		t.Fatal(err)
	}
	if took := shaped.least(t, 3); took < 11*time.Millisecond || took > 25*time.Millisecond {
		t.Errorf("after the change a round trip takes %v, want 11 ms", took)
	}
	release, err := made.(*Link).Hold()
	if err != nil {
		t.Fatal(err)
	}
	if took := shaped.least(t, 3); took > 8*time.Millisecond {
		t.Errorf("held, a round trip takes %v", took)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if took := shaped.least(t, 3); took < 11*time.Millisecond {
		t.Errorf("released, a round trip takes %v", took)
	}
	if !hasFile(t, host.o.Journals) {
		t.Error("there is no journal")
	}
	if err := made.Close(); err != nil {
		t.Fatal(err)
	}
	if took := shaped.least(t, 3); took > 8*time.Millisecond {
		t.Errorf("without the link a round trip takes %v", took)
	}
	if diff := cmp.Diff(before, b.control(t)); diff != "" {
		t.Errorf("what hangs at the interface (-before +after):\n%s", diff)
	}
	if got, want := b.devices(t), []string{"eth1", "lo"}; !slices.Equal(got, want) {
		t.Errorf("the host has %v, want %v", got, want)
	}
	if hasFile(t, host.o.Journals) {
		t.Error("a journal is left")
	}
}

func TestRefused(t *testing.T) {
	b := newBed(t)
	engine := inner(t, "wire")
	for name, test := range map[string]struct {
		options Options
		spec    func(*link.Spec)
		match   link.Match
		want    string
	}{
		"no match":             {Options{}, nil, link.Match{}, "never as a whole"},
		"ssh":                  {Options{}, nil, link.Match{Protocol: link.TCP, Port: 22}, "never shaped"},
		"the controller":       {Options{Management: []link.Match{{Protocol: link.TCP, Port: 8443}}}, nil, link.Match{Protocol: link.TCP, Port: 8443}, "never shaped"},
		"an unknown interface": {Options{}, func(s *link.Spec) { s.Ends[0].Name = "eth9" }, shapedMatch(), "no interface"},
		"the loopback":         {Options{}, func(s *link.Spec) { s.Ends[0].Name = "lo" }, shapedMatch(), "interfaces.loopback"},
		"a shape that wire cannot carry": {Options{}, func(s *link.Spec) {
			s.Directions[0].Shape.Rate = 1e6
		}, shapedMatch(), "queue"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(time.Millisecond)
			if test.spec != nil {
				test.spec(&s)
			}
			e := b.shaper(t, test.options).Engine(engine, Way{Match: test.match})
			if err := e.Check(s); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Check: %v, want %q in it", err, test.want)
			}
			if l, err := e.Create(t.Context(), s); err == nil {
				t.Errorf("Create makes it: %v", errors.Join(l.Close()))
			}
		})
	}
}
