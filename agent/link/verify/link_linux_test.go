package verify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/netem"
	"github.com/tcplab/tcplab/agent/link/veth"
	"github.com/tcplab/tcplab/agent/link/wire"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stand makes a link between two new nodes.
func stand(t testing.TB, engine link.Engine, shapes [2]link.Shape) link.Spec {
	spec, _ := standing(t, engine, shapes)
	return spec
}

func standing(t testing.TB, engine link.Engine, shapes [2]link.Shape) (link.Spec, link.Link) {
	t.Helper()
	spec := nodes(t)
	for i := range spec.Directions {
		spec.Directions[i] = link.Direction{Shape: shapes[i], Seed: uint64(i + 1)}.Resolve(shapes[0].Delay+shapes[1].Delay, 1500)
	}
	return spec, made(t, engine, spec)
}

// nodes are two new ones with a place for a link between them.
func nodes(t testing.TB) link.Spec {
	t.Helper()
	spec := link.Spec{Name: "probed"}
	for i := range spec.Ends {
		ns, err := netns.New(fmt.Sprintf("node%d", i))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		spec.Ends[i] = link.Port{Node: ns, Name: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)}, MTU: 1500}
	}
	return spec
}

// made makes the link, until the test ends.
func made(t testing.TB, engine link.Engine, spec link.Spec) link.Link {
	t.Helper()
	l, err := engine.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), engine.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// engines that this machine can run, each in a subtest that names it, with the unit
// of rates that such a machine fills even when it is busy: netem is tested in a guest
// of one processor that takes 80 µs and more for a frame.
func engines(t *testing.T, test func(t *testing.T, engine func() link.Engine, mbit uint64)) {
	t.Run("wire", func(t *testing.T) {
		need.NetNS(t)
		test(t, func() link.Engine {
			e, err := wire.New(wire.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return e
		}, 1e6)
	})
	t.Run("netem", func(t *testing.T) {
		need.Qdisc(t, "netem")
		test(t, func() link.Engine { return netem.New() }, 1e5)
	})
}

// patient leaves a busy host the time to measure at all.
var patient = Options{Limit: 10 * time.Second, Attempts: 5}

func log(t *testing.T, r Report) {
	t.Helper()
	for i, d := range r.Directions {
		for _, s := range d {
			for q, f := range s.Findings {
				if f.Detail != "" {
					t.Logf("direction %d %s: %v %v: %s", i, s.Path, Quantity(q), f.Verdict, f.Detail)
				}
			}
		}
	}
	t.Logf("%d attempts in %v", r.Attempts, r.Took.Round(time.Millisecond))
}

func TestRightLinksPass(t *testing.T) {
	engines(t, func(t *testing.T, engine func() link.Engine, mbit uint64) {
		for name, shapes := range map[string][2]link.Shape{
			"handshake":  {{Delay: 10 * ms, Rate: 100 * mbit}, {Delay: 10 * ms, Rate: 100 * mbit}},
			"unlike":     {{Delay: 5 * ms, Rate: 30 * mbit}, {Delay: 30 * ms, Rate: 10 * mbit}},
			"lossy":      {{Delay: 2 * ms, Loss: link.RandomLoss(0.1)}, {Delay: 2 * ms, Loss: link.RandomLoss(0.2), Rate: 20 * mbit}},
			"delay only": {{Delay: 20 * ms}, {Delay: 20 * ms}},
			"slow":       {{Rate: 256e3}, {Rate: 1e6}},
		} {
			t.Run(name, func(t *testing.T) {
				spec, l := standing(t, engine(), shapes)
				options := patient
				options.Counters = func(int) ([2]link.Counters, error) { return l.Counters() }
				report, err := Link(t.Context(), spec, options)
				if err != nil {
					t.Fatal(err)
				}
				log(t, report)
				if report.Verdict() != Passed {
					t.Errorf("a link that is right is %v", report.Verdict())
				}
			})
		}
	})
}

// Each quantity that is not what was asked is found, on a link made with one
// shape and verified against another.
func TestWrongLinksFail(t *testing.T) {
	engines(t, func(t *testing.T, engine func() link.Engine, mbit uint64) {
		asked := link.Shape{Delay: 10 * ms, Rate: 50 * mbit, Queue: link.Queue{Packets: 200}}
		for name, change := range map[string]func(*link.Shape){
			"delay 2 ms longer":  func(s *link.Shape) { s.Delay += 2 * ms },
			"delay 2 ms shorter": func(s *link.Shape) { s.Delay -= 2 * ms },
			"rate 10% lower":     func(s *link.Shape) { s.Rate = 45 * mbit },
			"rate 10% higher":    func(s *link.Shape) { s.Rate = 55 * mbit },
			"rate 10 times":      func(s *link.Shape) { s.Rate = 500 * mbit },
			"rate one hundredth": func(s *link.Shape) { s.Rate = mbit / 2 },
			"5% loss":            func(s *link.Shape) { s.Loss = link.RandomLoss(0.05) },
		} {
			t.Run(name, func(t *testing.T) {
				wrong := asked
				change(&wrong)
				spec := stand(t, engine(), [2]link.Shape{asked, wrong})
				spec.Directions[1].Shape = asked
				report, err := Link(t.Context(), spec, patient)
				if err != nil {
					t.Fatal(err)
				}
				log(t, report)
				if got := report.Directions[1].Verdict(); got != Failed {
					t.Errorf("the direction that is wrong is %v", got)
				}
				if got := report.Directions[0].Verdict(); got != Passed {
					t.Errorf("the direction that is right is %v", got)
				}
			})
		}
	})
}

func TestUnshapedLink(t *testing.T) {
	need.NetNS(t)
	spec := stand(t, veth.Engine{}, [2]link.Shape{})
	report, err := Link(t.Context(), spec, patient)
	if err != nil {
		t.Fatal(err)
	}
	log(t, report)
	if report.Verdict() != Passed {
		t.Errorf("a bare veth that was asked for is %v", report.Verdict())
	}
	spec.Directions[0].Shape.Delay = 10 * ms
	report, err = Link(t.Context(), spec, patient)
	if err != nil {
		t.Fatal(err)
	}
	if got := report.Directions[0][0].Findings[Delay].Verdict; got != Failed {
		t.Errorf("a delay of 10 ms on a bare veth is %v", got)
	}
}

// A switch's port belongs to a bridge, which takes its frames before anyone
// without a claim to all of them.
func TestPortOfABridge(t *testing.T) {
	need.NetNS(t)
	spec := stand(t, veth.Engine{}, [2]link.Shape{})
	err := spec.Ends[1].Node.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "switch"
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		port, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(port, bridge), netlink.LinkSetUp(bridge))
	})
	if err != nil {
		t.Fatal(err)
	}
	report, err := Link(t.Context(), spec, patient)
	if err != nil {
		t.Fatal(err)
	}
	log(t, report)
	if report.Verdict() != Passed {
		t.Errorf("a bare veth into a bridge is %v", report.Verdict())
	}
}

func TestLinksTogether(t *testing.T) {
	engines(t, func(t *testing.T, engine func() link.Engine, mbit uint64) {
		var specs []link.Spec
		var links []link.Link
		for range 3 {
			spec, l := standing(t, engine(), [2]link.Shape{{Delay: 10 * ms, Rate: 20 * mbit}, {Delay: 10 * ms, Rate: 20 * mbit}})
			specs, links = append(specs, spec), append(links, l)
		}
		options := patient
		options.Counters = func(i int) ([2]link.Counters, error) { return links[i].Counters() }
		reports, err := Links(t.Context(), specs, options)
		if err != nil {
			t.Fatal(err)
		}
		for _, report := range reports {
			if report.Verdict() != Passed {
				log(t, report)
				t.Errorf("a link that is right is %v", report.Verdict())
			}
		}
	})
}

// However wrong a link is, its verification ends in time.
func TestLimitHolds(t *testing.T) {
	need.NetNS(t)
	spec := stand(t, veth.Engine{}, [2]link.Shape{})
	spec.Directions[0].Shape = link.Shape{Delay: 600 * ms, Rate: 64e3, Loss: link.RandomLoss(0.5), Queue: link.Queue{Packets: 100}}
	for _, limit := range []time.Duration{100 * ms, time.Second} {
		report, err := Link(t.Context(), spec, Options{Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		// Half as long again, for the host's part.
		if report.Took > limit*3/2+100*ms {
			t.Errorf("took %v, the limit was %v", report.Took, limit)
		}
	}
}

func TestCancelledVerificationEnds(t *testing.T) {
	need.NetNS(t)
	spec := stand(t, veth.Engine{}, [2]link.Shape{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begin := time.Now()
	if _, err := Link(ctx, spec, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("took %v to end", took)
	}
}
