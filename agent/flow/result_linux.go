package flow

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow/latency"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// connectionResult is what both ends of a connection have measured, and what stopped it.
type connectionResult struct {
	client, server measured
	failed         error
}

// result is that of the whole flow, which failed stopped, if anything did.
func (f *Flow) result(connections []connectionResult, failed error) *tcplabv1.FlowResult {
	all := make([]*tcplabv1.FlowResult, len(connections))
	t := totals{first: connections[0].client.started}
	for i, c := range connections {
		all[i] = f.streams[i].result(f.spec.GetName(), c)
		t.add(&c, f.streams[i].client.kind.forward())
	}
	r := all[0]
	if len(all) > 1 {
		r = t.joined(all)
	}
	t.latencies(r)
	r.GoodputBps = t.rate(r.GetBytes(), t.lastRead)
	if b, ok := f.streams[0].client.kind.(bulk); ok {
		r.Bulk = f.bulkResult(b, &t, r.GetClient().GetBytesRead())
	}
	r.Outcome, r.Error = OutcomeOf(failed), ""
	if failed != nil {
		r.Error = failed.Error()
	}
	return r
}

// result is that of one connection.
func (c *connection) result(name string, of connectionResult) *tcplabv1.FlowResult {
	r := &tcplabv1.FlowResult{
		Name:          name,
		Kind:          c.client.kind.name(),
		Client:        c.client.report(of.client, of.client.started),
		Server:        c.server.report(of.server, of.client.started),
		SamplesCount:  of.client.series.Count + of.server.series.Count,
		SamplesMissed: of.client.series.Missed + of.server.series.Missed,
		Writes:        timings(of.client, of.server),
		Outcome:       OutcomeOf(of.failed),
	}
	if of.failed != nil {
		r.Error = of.failed.Error()
	}
	t := totals{first: of.client.started}
	t.add(&of, c.client.kind.forward())
	t.latencies(r)
	r.Bytes = of.client.read
	if c.client.kind.forward() {
		r.Bytes = of.server.read
	}
	r.GoodputBps = t.rate(r.GetBytes(), t.lastRead)
	return r
}

// totals add up what the connections of a flow have measured.
type totals struct {
	connects, waits, uncorrected latency.Set
	first                        time.Time // when the first connection was begun
	lastRead, lastBackward       time.Time // when the last byte of the flow's direction, and of the other, was read
	sends, copied                uint64    // with MSG_ZEROCOPY
	atServer                     bool      // the server measured the waits
}

func (t *totals) add(c *connectionResult, forward bool) {
	if c.client.connect > 0 {
		t.connects.Add(c.client.connect)
	}
	t.waits.Merge(&c.client.latencies)
	t.uncorrected.Merge(&c.client.uncorrected)
	t.atServer = t.atServer || len(c.server.arrived) > 0
	for i, span := range c.server.arrived {
		t.waits.Add(span.end.Sub(c.client.wrote[i].begin))
	}
	if started := c.client.started; !started.IsZero() && (t.first.IsZero() || started.Before(t.first)) {
		t.first = started
	}
	receiver, other := c.client.lastRead, c.server.lastRead
	if forward {
		receiver, other = other, receiver
	}
	if receiver.After(t.lastRead) {
		t.lastRead = receiver
	}
	if other.After(t.lastBackward) {
		t.lastBackward = other
	}
	t.sends += c.client.zerocopySends + c.server.zerocopySends
	t.copied += c.client.zerocopyCopied + c.server.zerocopyCopied
}

// latencies enters them into a result.
func (t *totals) latencies(r *tcplabv1.FlowResult) {
	r.Connect, r.Latency = t.connects.Summary(), t.waits.Summary()
	by := string(socket.Client)
	r.Histograms = []*tcplabv1.LatencyHistogram{t.connects.Histogram("connect", by)}
	if t.uncorrected.Count() > 0 {
		r.Uncorrected = t.uncorrected.Summary()
		r.Histograms = append(r.Histograms, t.uncorrected.Histogram("uncorrected", by))
	}
	if t.atServer {
		by = string(socket.Server)
	}
	r.Histograms = append(r.Histograms, t.waits.Histogram("latency", by))
}

// rate is that of so many bytes from the first connection's start until then, in bit/s.
func (t *totals) rate(bytes uint64, until time.Time) float64 {
	took := until.Sub(t.first)
	if bytes == 0 || took <= 0 {
		return 0
	}
	return float64(bytes) * 8 / took.Seconds()
}

// joined is the result of several connections, with the sums of what can be added up.
func (t *totals) joined(all []*tcplabv1.FlowResult) *tcplabv1.FlowResult {
	end := func(of *tcplabv1.FlowEnd) *tcplabv1.FlowEnd {
		return &tcplabv1.FlowEnd{Node: of.GetNode(), Congestion: of.GetCongestion(), Socket: of.GetSocket()}
	}
	r := &tcplabv1.FlowResult{
		Name: all[0].GetName(), Kind: all[0].GetKind(), Streams: all,
		Client: end(all[0].GetClient()), Server: end(all[0].GetServer()),
	}
	for _, one := range all {
		r.Bytes += one.GetBytes()
		r.SamplesCount += one.GetSamplesCount()
		r.SamplesMissed += one.GetSamplesMissed()
		r.Client.BytesWritten += one.GetClient().GetBytesWritten()
		r.Client.BytesRead += one.GetClient().GetBytesRead()
		r.Server.BytesWritten += one.GetServer().GetBytesWritten()
		r.Server.BytesRead += one.GetServer().GetBytesRead()
	}
	return r
}

func (f *Flow) bulkResult(b bulk, t *totals, backward uint64) *tcplabv1.BulkResult {
	r := &tcplabv1.BulkResult{ZerocopySends: t.sends, ZerocopyCopied: t.copied}
	if b.both {
		r.BackwardBps = t.rate(backward, t.lastBackward)
	}
	if s := f.steady; s != nil {
		r.Steady, r.SteadyBps, r.SteadyVariation = s.found, s.rate, s.variation
		if s.found {
			r.SteadyAt = durationpb.New(s.at)
		}
	}
	return r
}

// report is one end as the contract sends it. Times count from start.
func (h *half) report(m measured, start time.Time) *tcplabv1.FlowEnd {
	end := &tcplabv1.FlowEnd{
		Node:         h.end.Node,
		BytesWritten: m.written,
		BytesRead:    m.read,
		Congestion:   m.congestion,
		CwndSeries:   m.series.Changes(start),
		Socket:       m.socket,
	}
	if m.address.IsValid() {
		end.Address = m.address.String()
	}
	if m.series.Last.State != 0 {
		end.TcpInfo = m.series.Last.Proto()
	}
	end.CongestionInfo = m.control.Proto()
	return end
}
