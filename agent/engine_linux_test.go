package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/veth"
	"github.com/tcplab/tcplab/agent/topology"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// able is an engine that can or cannot, as a kernel has it.
type able struct {
	veth.Engine // for what no choice calls
	name        string
	lacks       error
}

func (a able) Name() string          { return a.name }
func (a able) Check(link.Spec) error { return a.lacks }

func TestEngineChoice(t *testing.T) {
	const (
		auto  = tcplabv1.Engine_ENGINE_AUTO
		netem = tcplabv1.Engine_ENGINE_NETEM
		wire  = tcplabv1.Engine_ENGINE_WIRE
		plain = tcplabv1.Engine_ENGINE_VETH
	)
	lacks := errors.New("no qdisc")
	for name, test := range map[string]struct {
		netem, wire error
		asked       []tcplabv1.Engine // of link a, which is shaped, and b, which is not
		want        []tcplabv1.Engine
		reasons     string // what they contain, in their order
		fails       rpcerr.Reason
	}{
		"netem where it can be":    {nil, nil, []tcplabv1.Engine{auto, auto}, []tcplabv1.Engine{netem, plain}, "netem: (a) veth: (b)", ""},
		"else wire":                {lacks, nil, []tcplabv1.Engine{auto, auto}, []tcplabv1.Engine{wire, plain}, "wire: no qdisc (a) veth: (b)", ""},
		"neither":                  {lacks, lacks, []tcplabv1.Engine{auto, auto}, nil, "", rpcerr.HostUnsupported},
		"neither, nothing to do":   {lacks, lacks, []tcplabv1.Engine{plain, plain}, nil, "", rpcerr.LabInvalid},
		"as asked":                 {nil, nil, []tcplabv1.Engine{wire, wire}, []tcplabv1.Engine{wire, wire}, "wire: (a, b)", ""},
		"as asked, which cannot":   {lacks, nil, []tcplabv1.Engine{netem, auto}, nil, "", rpcerr.HostUnsupported},
		"veth shapes nothing":      {nil, nil, []tcplabv1.Engine{plain, auto}, nil, "", rpcerr.LabInvalid},
		"netem though unnecessary": {nil, nil, []tcplabv1.Engine{auto, netem}, []tcplabv1.Engine{netem, netem}, "netem: (a) netem: (b)", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := &engines{byKind: map[tcplabv1.Engine]link.Engine{
				netem: able{name: "netem", lacks: test.netem}, wire: able{name: "wire", lacks: test.wire}, plain: veth.Engine{},
			}}
			shaped := link.Direction{Shape: link.Shape{Delay: time.Millisecond}}
			plan := &topology.Plan{
				Nodes: []topology.Node{{Interfaces: make([]topology.Interface, 2)}, {Interfaces: make([]topology.Interface, 2)}},
				Links: []topology.Link{
					{Name: "a", Engine: test.asked[0], Directions: [2]link.Direction{1: shaped}, Ends: [2]topology.End{{Node: 0}, {Node: 1}}},
					{Name: "b", Engine: test.asked[1], Ends: [2]topology.End{{Node: 0, Interface: 1}, {Node: 1, Interface: 1}}},
				},
			}
			got, err := e.choose(plan, nil)
			if test.fails != "" {
				if e := rpcerr.From(err); e == nil || e.Reason != test.fails || e.Remedy == "" {
					t.Errorf("choose: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.kinds); diff != "" {
				t.Errorf("engines (-want +got):\n%s", diff)
			}
			reasons := strings.Join(got.reasons, " ")
			rest := reasons
			for part := range strings.FieldsSeq(test.reasons) {
				_, after, found := strings.Cut(rest, part)
				if !found {
					t.Errorf("%q is not in the reasons in its place: %q", part, reasons)
				}
				rest = after
			}
		})
	}
}

// BenchmarkApply is the time from Apply to two nodes with a shaped link that stands.
func BenchmarkApply(b *testing.B) {
	r := start(b, b.TempDir())
	lab := twoNodes(b, &tcplabv1.Shape{RateBps: 1e8}, bulk("b", 1))
	for b.Loop() {
		r.apply(b, "d", lab)
		b.StopTimer()
		if _, err := r.Remove(r.ctx, &tcplabv1.RemoveRequest{DeploymentId: "d"}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// counted is a link that has counted what it is told.
type counted struct {
	link.Link // for what no count calls
	counters  [2]link.Counters
}

func (c counted) Counters() ([2]link.Counters, error) { return c.counters, nil }

// A frame that the engine itself lost voids the trial, with the figures.
func TestLostByTheEngine(t *testing.T) {
	d := &deployment{
		plan: &topology.Plan{Links: []topology.Link{{Name: "a-b"}}},
		standing: &topology.Standing{Links: []link.Link{counted{counters: [2]link.Counters{
			{Received: 10, Delivered: 7, Lost: 2, Overflow: 1, PeakQueue: 3}, {Received: 100, Delivered: 95, Failed: 5},
		}}}},
		choice: &choice{kinds: []tcplabv1.Engine{tcplabv1.Engine_ENGINE_WIRE}},
	}
	reports := d.unmeasured()
	err := d.countLinks(reports)
	if err == nil || !strings.Contains(err.Error(), "link a-b backward: the wire engine itself lost 5 of 100 frames") || strings.Contains(err.Error(), "forward:") {
		t.Errorf("countLinks: %v", err)
	}
	want := []*tcplabv1.LinkCounters{
		{Received: 10, Delivered: 7, Lost: 2, Overflow: 1, PeakQueue: 3}, {Received: 100, Delivered: 95, Failed: 5},
	}
	for i, w := range want {
		if diff := cmp.Diff(w, reports[i].GetCounters(), protocmp.Transform()); diff != "" {
			t.Errorf("direction %d (-want +got):\n%s", i, diff)
		}
	}
}
