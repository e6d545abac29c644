package labs

import (
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Defaults of what a lab leaves out.
const (
	DefaultMTU            = 1500                  // bytes of the largest IP packet
	DefaultSampleInterval = 10 * time.Millisecond // between samples of TCP_INFO
	DefaultTimeout        = time.Minute           // of an experiment
)

// minQueuePackets is the least queue that the default gives a bottleneck, in
// packets: that of agent/link.
const minQueuePackets = 100

// frameOverhead is the Ethernet header, which rates and queues count beside
// the IP packet.
const frameOverhead = 14

// Complete fills in what the lab leaves out: the kinds of nodes, names,
// queues (of paths, steps and traces, too), engines and MTUs of links, the family, count, streams, connections and no_delay of flows, how their connections are limited and ended,
// the experiments' sample interval and timeout, what they capture, how repetitions are joined,
// one repetition, and the sysctls of nodes that socket options need. Addresses are not its matter; see [Assign]. It changes
// nothing that is set, and nothing at all the second time.
func Complete(lab *tcplabv1.Lab) {
	lab.Repeat = max(1, lab.GetRepeat())
	for _, n := range lab.GetNodes() {
		if n.GetKind() == tcplabv1.NodeKind_NODE_KIND_UNSPECIFIED {
			n.Kind = tcplabv1.NodeKind_NODE_KIND_ENDPOINT
		}
	}
	taken := make(map[string]bool)
	for _, l := range lab.GetLinks() {
		taken[l.GetName()] = true
	}
	for _, l := range lab.GetLinks() {
		if l.GetName() == "" {
			l.Name = freeName(l.GetA().GetNode()+"-"+l.GetB().GetNode(), taken)
		}
		completeLink(l)
	}
	for _, e := range lab.GetExperiments() {
		if e.GetSampleInterval() == nil {
			e.SampleInterval = durationpb.New(DefaultSampleInterval)
		}
		if e.GetTimeout() == nil {
			e.Timeout = durationpb.New(DefaultTimeout)
		}
		completeCapture(lab, e)
		for _, f := range e.GetFlows() {
			completeFlow(f)
			completeNodes(lab, f)
		}
	}
	for _, e := range lab.GetExpectations() {
		if e.GetOver() == tcplabv1.Over_OVER_UNSPECIFIED {
			e.Over = tcplabv1.Over_OVER_MEDIAN
		}
	}
}

// freeName is name, or with the first of -2, -3, … that nobody has: parallel
// links join the same nodes.
func freeName(name string, taken map[string]bool) string {
	free := name
	for i := 2; taken[free]; i++ {
		free = name + "-" + strconv.Itoa(i)
	}
	taken[free] = true
	return free
}

func completeLink(l *tcplabv1.Link) {
	if l.GetMtu() == 0 {
		l.Mtu = DefaultMTU
	}
	if l.GetEngine() == tcplabv1.Engine_ENGINE_UNSPECIFIED {
		l.Engine = tcplabv1.Engine_ENGINE_AUTO
	}
	if l.Forward == nil {
		l.Forward = &tcplabv1.Direction{}
	}
	if l.Backward == nil {
		l.Backward = &tcplabv1.Direction{}
	}
	directions := [2]*tcplabv1.Direction{l.Forward, l.Backward}
	roundTrip := 0.0
	for _, d := range directions {
		if d.Shape == nil {
			d.Shape = &tcplabv1.Shape{}
		}
		roundTrip += d.GetShape().GetDelay().AsDuration().Seconds()
	}
	for _, d := range directions {
		rate := d.GetShape().GetRateBps()
		if d.GetTrace() != nil {
			rate = meanRate(d.GetTrace())
		}
		completeQueue(d.GetShape(), rate, roundTrip, l.GetMtu())
		for _, p := range d.GetPaths() {
			if p != nil && p.Shape == nil {
				p.Shape = &tcplabv1.Shape{}
			}
			completeQueue(p.GetShape(), p.GetShape().GetRateBps(), roundTrip, l.GetMtu())
		}
		for _, s := range d.GetSchedule() {
			completeQueue(s.GetShape(), s.GetShape().GetRateBps(), roundTrip, l.GetMtu())
		}
	}
}

// completeQueue gives the queue of a bottleneck its limit, where it has none. Cake keeps its queue
// short by itself, and takes none.
func completeQueue(s *tcplabv1.Shape, bps, roundTrip float64, mtu uint32) {
	if s == nil || !(bps > 0) || s.GetQueue().GetLimit() != nil || s.GetQueue().GetDiscipline() == tcplabv1.QueueDiscipline_QUEUE_DISCIPLINE_CAKE {
		return
	}
	if s.Queue == nil {
		s.Queue = &tcplabv1.Queue{}
	}
	s.Queue.Limit = &tcplabv1.Queue_Packets{Packets: bandwidthDelayPackets(bps, roundTrip, mtu)}
}

// defaultOpportunity is what one moment of a trace sends: a full frame.
const defaultOpportunity = 1514

// meanRate is the rate of a trace over its whole length, in bit/s.
func meanRate(t *tcplabv1.Trace) float64 {
	n := len(t.GetOpportunitiesMs())
	if n == 0 || t.GetOpportunitiesMs()[n-1] == 0 {
		return 0
	}
	bytes := t.GetOpportunityBytes()
	if bytes == 0 {
		bytes = defaultOpportunity
	}
	length := time.Duration(t.GetOpportunitiesMs()[n-1]) * time.Millisecond
	return float64(n*int(bytes)*8) / length.Seconds()
}

// bandwidthDelayPackets is the default queue: what the rate sends in a round
// trip, in packets of a full MTU.
func bandwidthDelayPackets(bps, roundTrip float64, mtu uint32) uint32 {
	packets := math.Ceil(bps / 8 * roundTrip / float64(mtu+frameOverhead))
	return uint32(min(max(minQueuePackets, packets), math.MaxUint32))
}

func completeFlow(f *tcplabv1.Flow) {
	if f.GetFamily() == tcplabv1.IpFamily_IP_FAMILY_UNSPECIFIED {
		f.Family = tcplabv1.IpFamily_IP_FAMILY_IPV4
	}
	if t := f.GetTransaction(); t != nil {
		t.Count, t.Connections = max(1, t.GetCount()), max(1, t.GetConnections())
	}
	if b := f.GetBulk(); b != nil {
		b.Streams = max(1, b.GetStreams())
	}
	if b := f.GetBurst(); b != nil {
		b.Count = max(1, b.GetCount())
	}
	if k := f.GetConnect(); k != nil {
		completeConnect(f, k)
	}
	completeDNS(f)
	if f.GetDns() != nil {
		return // it has no connection
	}
	if h := f.GetHttp(); h != nil {
		completeHTTP(h)
	}
	if f.GetExec() != nil {
		completeExec(f.GetExec())
		return // its sockets are its programs' own
	}
	if f.Socket == nil {
		f.Socket = &tcplabv1.SocketOptions{}
	}
	if f.Socket.NoDelay == nil {
		f.Socket.NoDelay = new(true)
	}
	if f.Socket.GetFastOpen() && f.Socket.FastOpenQueue == 0 {
		f.Socket.FastOpenQueue = defaultFastOpenQueue
	}
}
