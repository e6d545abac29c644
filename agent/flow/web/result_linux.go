package web

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// maxExchanges is how many objects are told of one by one (HttpResult.exchanges).
const maxExchanges = 1000

// errNever says that the flow ended before an object had its turn.
var errNever = errors.New("the flow ended before")

// result joins what all have measured, once all have ended.
func (f *Flow) result(failed error) *tcplabv1.FlowResult {
	c, s := f.client, f.server
	seen := &c.seen
	f.unfinished(failed)
	by := string(socket.Client)
	r := &tcplabv1.FlowResult{
		Name:         f.spec.GetName(),
		Kind:         "http",
		Client:       c.first.report(&c.side, c.begun),
		Server:       s.first.report(&s.side, c.begun),
		Connect:      seen.connect.Summary(),
		Latency:      seen.latency.Summary(),
		Bytes:        seen.bodies,
		SamplesCount: c.sampled + s.sampled,
		Outcome:      flow.OutcomeOf(failed),
		Http:         f.httpResult(),
		Histograms:   []*tcplabv1.LatencyHistogram{seen.connect.Histogram("connect", by), seen.latency.Histogram("latency", by)},
	}
	if took := seen.lastRead.Sub(c.begun); r.Bytes > 0 && took > 0 {
		r.GoodputBps = float64(r.Bytes) * 8 / took.Seconds()
	}
	if failed != nil {
		r.Error = failed.Error()
	}
	return r
}

// unfinished counts the objects that had not come when the flow was ended.
func (f *Flow) unfinished(failed error) {
	if failed == nil {
		return
	}
	for i := range f.client.seen.exchanges {
		e := &f.client.seen.exchanges[i]
		if !e.finished && (e.task.tries > 0 || !f.client.timeUp) {
			e.finished, e.err = true, fmt.Errorf("%w: %w", errNever, failed)
			f.client.seen.failed++
		}
	}
}

func (f *Flow) httpResult() *tcplabv1.HttpResult {
	c, s := f.client, f.server
	seen := &c.seen
	h := &tcplabv1.HttpResult{
		PageTime:        since(c.begun, c.ended),
		DocumentTime:    since(c.begun, seen.documentDone),
		Answers:         seen.answers,
		Failed:          seen.failed,
		CutShort:        seen.cutShort,
		UnseenCuts:      seen.unseenCuts,
		Retries:         seen.retries,
		Connections:     seen.connections,
		Reused:          seen.reused,
		PeakConnections: uint32(seen.peak),
		Requests:        seen.requests,
		Executed:        executions(s.seen.executed),
		BytesAsked:      seen.asked,
		BytesSent:       s.total.body,
		BytesRead:       seen.bodies,
		BytesReceived:   s.seen.received,
		Resets:          c.resets,
		ServerResets:    s.resets,
		Timeouts:        seen.timeouts,
		Overtaken:       seen.overtaken,
		First: &tcplabv1.HttpPhases{
			Resolve:   durationpb.New(0),
			Connect:   durationpb.New(seen.phases.connect),
			FirstByte: durationpb.New(seen.phases.firstByte),
			Body:      durationpb.New(seen.phases.body),
			Total:     durationpb.New(seen.phases.total),
		},
		FirstByte: seen.firstByte.Summary(),
	}
	if took := h.GetPageTime().AsDuration(); took > 0 {
		h.Rate = float64(seen.answers) / took.Seconds()
	}
	for i := range seen.exchanges[:min(len(seen.exchanges), maxExchanges)] {
		h.Exchanges = append(h.Exchanges, f.exchange(i))
	}
	for _, p := range f.proxies {
		h.Proxies = append(h.Proxies, &tcplabv1.HttpProxyResult{
			Node:         p.spec.Node,
			Accepted:     p.seen.accepted,
			Connections:  p.seen.connections,
			Requests:     p.seen.requests,
			BytesRelayed: p.seen.relayed,
			BytesUnread:  uint32(p.seen.unread),
			Resets:       p.resets,
			Address:      p.address.String(),
		})
	}
	return h
}

func (f *Flow) exchange(i int) *tcplabv1.HttpExchange {
	e, begun := &f.client.seen.exchanges[i], f.client.begun
	x := &tcplabv1.HttpExchange{
		Object:     uint32(i),
		Connection: uint32(e.connection),
		Asked:      since(begun, e.task.asked),
		FirstByte:  since(begun, e.task.arrived),
		Done:       since(begun, e.done),
		Bytes:      e.bytes,
		Status:     uint32(e.status),
		Tries:      uint32(e.task.tries),
		Outcome:    flow.OutcomeOf(e.err),
		Place:      uint32(e.place),
	}
	if !e.finished {
		x.Outcome = tcplabv1.FlowOutcome_FLOW_OUTCOME_UNSPECIFIED
	}
	return x
}

// since is how long after the beginning something was; 0 where it never was.
func since(begun, at time.Time) *durationpb.Duration {
	if at.IsZero() || begun.IsZero() {
		return durationpb.New(0)
	}
	return durationpb.New(at.Sub(begun))
}

func executions(by map[string]uint32) *tcplabv1.HttpExecutions {
	x := &tcplabv1.HttpExecutions{Get: by["GET"], Head: by["HEAD"], Post: by["POST"], Put: by["PUT"], Delete: by["DELETE"]}
	for _, n := range by {
		x.Total += n
	}
	return x
}
