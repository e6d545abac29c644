package main

import (
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/parquet-go/parquet-go"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// sampleRow is what is looked at of a row of samples.parquet.
type sampleRow struct {
	Flow        string `parquet:"flow"`
	End         string `parquet:"end"`
	BytesSent   uint64 `parquet:"bytes_sent"`
	DataSegsOut uint32 `parquet:"data_segs_out"`
}

func samplesIn(file string) ([]sampleRow, error) {
	rows, err := parquet.ReadFile[sampleRow](file)
	if err != nil {
		return nil, fmt.Errorf("read the samples: %w", err)
	}
	return rows, nil
}

// comparison holds counts against each other.
type comparison struct {
	*sides
	compared int
	wrong    []error
}

// equal wants two counts to be the same.
func (c *comparison) equal(what string, one string, a uint64, other string, b uint64) {
	if c.compared++; a != b {
		c.wrong = append(c.wrong, fmt.Errorf("%s: %s %d, %s %d", what, one, a, other, b))
	}
}

// holds wants something to be so.
func (c *comparison) holds(so bool, format string, args ...any) {
	if c.compared++; !so {
		c.wrong = append(c.wrong, fmt.Errorf(format, args...))
	}
}

// compare holds each side against the others. All counts are exact.
func (s *sides) compare() (compared int, wrong []error) {
	c := &comparison{sides: s}
	for _, capture := range s.trial.GetCaptures() {
		c.holds(capture.GetPackets() > 0 && capture.GetDropped()+capture.GetLeftOut()+capture.GetDamaged() == 0, "the capture at %s is not whole", capture.GetNode())
		c.readings(capture)
		c.counters(capture)
	}
	for _, flow := range s.trial.GetFlows() {
		c.flow(flow)
	}
	c.links()
	c.programs()
	return c.compared, c.wrong
}

// readings holds tcplab's reading of a capture against tshark's, connection by connection.
func (c *comparison) readings(capture *tcplabv1.NodeCapture) {
	node := capture.GetNode()
	by := c.tshark[node]
	c.equal("connections at "+node, "tcplab", uint64(capture.GetAll().GetConnections()), "tshark", uint64(len(by.streams)))
	for _, seen := range c.read {
		if seen.Node != node {
			continue
		}
		for on, end := range seen.ways() {
			t := by.ways[on]
			if t == nil {
				t = &tally{}
			}
			what := fmt.Sprintf("%s from %s to %s at %s: ", seen.Flow, on.from, on.to, node)
			c.equal(what+"segments", "tcplab", end.GetSegments(), "tshark", t.segments)
			c.equal(what+"segments with data", "tcplab", end.GetDataSegments(), "tshark", t.data)
			c.equal(what+"bytes", "tcplab", end.GetBytes(), "tshark", t.bytes)
			c.equal(what+"resets", "tcplab", end.GetResets(), "tshark", t.resets)
			c.equal(what+"SYNs", "tcplab", seen.syns(on), "tshark", t.syns)
			// A capture at the receiver cannot tell for certain what was sent again and what was overtaken.
			if c.sends(on, node) {
				c.equal(what+"segments sent again", "tcplab", end.GetRetransmissions()+end.GetOutOfOrder()+end.GetDuplicates(), "tshark", t.again)
			}
		}
	}
}

// ways are a connection's two directions.
func (c *capturedAt) ways() map[way]*tcplabv1.CapturedEnd {
	return map[way]*tcplabv1.CapturedEnd{{c.Client, c.Server}: c.read.GetClient(), {c.Server, c.Client}: c.read.GetServer()}
}

// syns are the SYNs that went this way; there is none where one was refused.
func (c *capturedAt) syns(on way) uint64 {
	if on.from == c.Client {
		return 1 + c.read.GetClient().GetSynRetransmissions()
	}
	return uint64(c.read.GetSynAck().GetCount()) + c.read.GetServer().GetSynRetransmissions()
}

// sends reports whether what goes this way leaves the node.
func (c *comparison) sends(on way, node string) bool {
	t := c.tshark[node].ways[on]
	return t != nil && t.left
}

// counters holds what the node's kernel counted against what was captured there.
func (c *comparison) counters(capture *tcplabv1.NodeCapture) {
	var in, out, again, opened, accepted uint64
	for _, seen := range c.read {
		if seen.Node != capture.GetNode() {
			continue
		}
		mine, other := seen.read.GetServer(), seen.read.GetClient()
		if c.sends(way{seen.Client, seen.Server}, seen.Node) {
			mine, other = other, mine
			opened++
		} else {
			accepted += uint64(seen.read.GetHandshake().GetCount())
		}
		in += other.GetSegments()
		out += mine.GetSegments()
		again += mine.GetRetransmissions() + mine.GetSynRetransmissions() + mine.GetFinRetransmissions()
	}
	for _, counted := range c.trial.GetCounters() {
		if counted.GetNode() != capture.GetNode() {
			continue
		}
		value := func(name string) uint64 { return uint64(counted.GetValues()[name]) }
		what := "at " + counted.GetNode() + " "
		c.equal(what+"segments that came", "captured", in, "TcpInSegs", value("TcpInSegs"))
		// TcpOutSegs leaves out what is sent again (RFC 4022).
		c.equal(what+"segments that left", "captured", out, "TcpOutSegs and TcpRetransSegs", value("TcpOutSegs")+value("TcpRetransSegs"))
		c.equal(what+"segments sent again", "captured", again, "TcpRetransSegs", value("TcpRetransSegs"))
		c.equal(what+"connections made", "captured", opened, "TcpActiveOpens", value("TcpActiveOpens"))
		c.equal(what+"connections accepted", "captured", accepted, "TcpPassiveOpens", value("TcpPassiveOpens"))
		return
	}
	c.holds(false, "no counters of %s", capture.GetNode())
}

// flow holds what a flow's ends say against each other and against the captures.
func (c *comparison) flow(f *tcplabv1.FlowResult) {
	switch f.GetKind() {
	case "exec": // its sockets are its programs'
		return
	case "dns":
		c.names(f)
		return
	}
	var made uint64
	for _, part := range single(f) {
		made += c.ends(part)
	}
	if len(f.GetHttp().GetProxies()) == 0 {
		c.equal(f.GetName()+": bytes up", "written", f.GetClient().GetBytesWritten(), "read", f.GetServer().GetBytesRead())
		c.equal(f.GetName()+": bytes down", "written", f.GetServer().GetBytesWritten(), "read", f.GetClient().GetBytesRead())
	}
	c.histogram(f, "connect", f.GetConnect(), made)
	c.histogram(f, "latency", f.GetLatency(), c.carriedOut(f))
	if n := f.GetConnections(); n != nil {
		c.equal(f.GetName()+": connections", "made", n.GetMade(), "captured", made)
		c.equal(f.GetName()+": connections", "made", n.GetMade(), "accepted", n.GetAccepted())
		c.equal(f.GetName()+": connections", "completed", n.GetCompleted(), "served", n.GetServed())
	}
}

// single are the results of a flow's streams and repetitions, or its own.
func single(f *tcplabv1.FlowResult) []*tcplabv1.FlowResult {
	parts := slices.Concat(f.GetStreams(), f.GetRepetitions())
	if len(parts) == 0 {
		return []*tcplabv1.FlowResult{f}
	}
	var all []*tcplabv1.FlowResult
	for _, part := range parts {
		all = append(all, single(part)...)
	}
	return all
}

func completed(f *tcplabv1.FlowResult) bool {
	return f.GetOutcome() == tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED
}

// ends holds the ends of one flow, or of one stream, against the captures, and returns how many connections
// its client was seen to make.
func (c *comparison) ends(f *tcplabv1.FlowResult) (made uint64) {
	name := f.GetName()
	client, server := f.GetClient(), f.GetServer()
	next := server.GetAddress() // whom the client connects to
	if proxies := f.GetHttp().GetProxies(); len(proxies) > 0 {
		next = proxies[0].GetAddress()
	}
	var up, down uint64
	first := false
	for _, seen := range c.read {
		if seen.Node == client.GetNode() && seen.Server == next {
			e := seen.read.GetClient()
			up += e.GetBytes() - e.GetBytesRetransmitted()
			made += uint64(seen.read.GetHandshake().GetCount())
		}
		if seen.Node == server.GetNode() && seen.Server == server.GetAddress() {
			e := seen.read.GetServer()
			down += e.GetBytes() - e.GetBytesRetransmitted()
		}
		if seen.Client == client.GetAddress() && seen.Server == next && seen.Node == client.GetNode() {
			first = true
			c.account(name+"'s client", client.GetTcpInfo(), seen.read.GetClient(), seen.read.GetServer())
		}
	}
	c.holds(first, "%s: its client's connection is in no capture", name)
	c.account(name+"'s server", server.GetTcpInfo(), c.firstAt(server).GetServer(), c.firstAt(server).GetClient())
	c.equal(name+": bytes up", "written", client.GetBytesWritten(), "captured", up)
	c.equal(name+": bytes down", "written", server.GetBytesWritten(), "captured", down)
	if !completed(f) {
		return made
	}
	c.holds(client.GetStatePath() != "" && server.GetStatePath() != "", "%s: its sockets' states were not seen", name)
	return made
}

// firstAt is the first connection to a server's address, as its node saw it.
func (c *comparison) firstAt(server *tcplabv1.FlowEnd) *tcplabv1.CapturedFlow {
	for _, seen := range c.read {
		if seen.Node == server.GetNode() && seen.Server == server.GetAddress() {
			return seen.read
		}
	}
	return nil
}

// account holds the kernel's account of a socket against what its node captured.
func (c *comparison) account(whose string, info *tcplabv1.TcpInfo, sent, came *tcplabv1.CapturedEnd) {
	if info == nil { // a connect flow's are not sampled
		return
	}
	c.equal(whose+": segments with data sent", "TCP_INFO", uint64(info.GetDataSegsOut()), "captured", sent.GetDataSegments())
	c.equal(whose+": segments with data received", "TCP_INFO", uint64(info.GetDataSegsIn()), "captured", came.GetDataSegments())
	c.equal(whose+": bytes sent", "TCP_INFO", info.GetBytesSent(), "captured", sent.GetBytes())
	c.equal(whose+": bytes sent again", "TCP_INFO", info.GetBytesRetrans(), "captured", sent.GetBytesRetransmitted())
	c.equal(whose+": segments sent again", "TCP_INFO", uint64(info.GetTotalRetrans()), "captured", sent.GetRetransmissions()+sent.GetSynRetransmissions())
}

// carriedOut is how many durations a flow's latency has, by what its other end counted.
func (c *comparison) carriedOut(f *tcplabv1.FlowResult) uint64 {
	switch f.GetKind() {
	case "bulk":
		var n uint64
		for _, part := range single(f) {
			if completed(part) {
				n++
			}
		}
		return n
	case "burst":
		return uint64(len(f.GetWrites()))
	case "http":
		return uint64(f.GetHttp().GetAnswers())
	case "connect":
		return f.GetConnections().GetServed()
	}
	// A transaction: by the replies that were captured.
	var replies uint64
	for _, seen := range c.read {
		if e := seen.read.GetServer(); seen.Flow == f.GetName() && seen.Node == f.GetServer().GetNode() {
			replies += e.GetBytes() - e.GetBytesRetransmitted()
		}
	}
	return replies / replyBytes()[f.GetName()]
}

// replyBytes are the sizes of replies in the lab's transactions.
func replyBytes() map[string]uint64 {
	return map[string]uint64{"transaction": 1000, "nagle": 300, "open_loop": 100, "get": 500, "shared": 1000, "closed": 500}
}

// names holds a dns flow against the captures of its questions and answers, those of other flows' among them.
func (c *comparison) names(f *tcplabv1.FlowResult) {
	var others uint64
	for _, other := range c.trial.GetFlows() {
		others += uint64(other.GetResolve().GetCount())
	}
	d := f.GetDns()
	for _, node := range []string{"client", "server"} {
		seen := c.tshark[node]
		c.equal("names: questions at "+node, "tcplab", uint64(d.GetLookups()+d.GetRetransmissions())+others, "tshark", seen.questions)
		c.equal("names: answers at "+node, "tcplab", uint64(d.GetFound()+d.GetNotFound())+others, "tshark", seen.answers)
	}
	c.histogram(f, "latency", f.GetLatency(), uint64(d.GetFound()+d.GetNotFound()))
}

// histogram wants one of the flow, with as many durations as were counted elsewhere, whose bounds are those
// of the summary.
func (c *comparison) histogram(f *tcplabv1.FlowResult, name string, summary *tcplabv1.LatencySummary, count uint64) {
	what := f.GetName() + ": histogram of " + name
	for _, h := range f.GetHistograms() {
		if h.GetName() != name {
			continue
		}
		c.equal(what, "said", h.GetCount(), "counted elsewhere", count)
		c.equal(what, "said", h.GetCount(), "summary", uint64(summary.GetCount()))
		decoded, err := hdrhistogram.Decode([]byte(base64.StdEncoding.EncodeToString(h.GetHdr())))
		if err != nil {
			c.holds(false, "%s: %w", what, err)
			return
		}
		c.equal(what, "decoded", uint64(decoded.TotalCount()), "counted elsewhere", count)
		if count == 0 {
			return
		}
		least, most := summary.GetMin().AsDuration().Nanoseconds(), summary.GetMax().AsDuration().Nanoseconds()
		c.holds(decoded.ValuesAreEquivalent(decoded.Min(), least), "%s: least %d ns, summary %d ns", what, decoded.Min(), least)
		c.holds(decoded.ValuesAreEquivalent(decoded.Max(), most), "%s: greatest %d ns, summary %d ns", what, decoded.Max(), most)
		return
	}
	c.holds(false, "%s: there is none", what)
}

// links wants a queue of each direction to have been looked at.
func (c *comparison) links() {
	for _, link := range c.trial.GetLinks() {
		if link.GetPath() == "" {
			c.holds(link.GetQueue().GetCount() > 0, "link %s: its queue was not looked at", link.GetName())
		}
	}
}

// programs wants samples of the exec flow's sockets, and none of more than was captured.
func (c *comparison) programs() {
	sent := make(map[way]*tcplabv1.CapturedEnd)
	for _, seen := range c.read {
		for on, end := range seen.ways() {
			if c.sends(on, seen.Node) {
				sent[on] = end
			}
		}
	}
	found := 0
	for _, row := range c.samples {
		for on, end := range sent {
			if row.Flow != on.from+">"+on.to {
				continue
			}
			found++
			c.holds(row.BytesSent <= end.GetBytes() && uint64(row.DataSegsOut) <= end.GetDataSegments(), "a sample of %s at %s has more than was captured", row.Flow, row.End)
		}
	}
	c.holds(found > 0, "no sample of a program's socket")
}
