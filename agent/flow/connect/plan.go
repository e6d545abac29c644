package connect

import (
	"errors"
	"fmt"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// plan is what a flow is to do, with defaults filled in (the contract's Connect, and of Flow what concerns it).
type plan struct {
	count          uint64        // connections to begin; 0: until the duration is over
	duration       time.Duration // 0: until count
	apart          time.Duration // between connections of an open loop; 0: a closed one
	concurrency    int
	requests       uint32
	request, reply int // bytes
	hold           time.Duration
	clientFirst    bool // the client ends connections, not the server
	abort          bool // with a reset
	backlog        int
	connectTimeout time.Duration // 0: the kernel's
	fault          tcplabv1.FlowFault
}

// Defaults and limits of the contract.
const (
	defaultBacklog      = 4096
	openLoopConcurrency = 10_000
	maxConcurrency      = 100_000
	maxMessage          = 16 << 20
)

func newPlan(of *tcplabv1.Flow) (*plan, error) {
	spec := of.GetConnect()
	p := &plan{
		count:          uint64(spec.GetCount()),
		duration:       of.GetDuration().AsDuration(),
		concurrency:    int(spec.GetConcurrency()),
		requests:       spec.GetRequests(),
		request:        int(spec.GetRequest()),
		reply:          int(spec.GetReply()),
		hold:           spec.GetHold().AsDuration(),
		backlog:        int(spec.GetBacklog()),
		connectTimeout: spec.GetConnectTimeout().AsDuration(),
		fault:          of.GetFault(),
	}
	rate := spec.GetRate()
	switch {
	case p.duration < 0 || p.hold < 0 || p.connectTimeout < 0:
		return nil, errors.New("a time below 0")
	case !(rate >= 0) || rate > 1e6:
		return nil, fmt.Errorf("connections at %v a second", rate)
	case p.concurrency > maxConcurrency:
		return nil, fmt.Errorf("%d connections at once: 1 to %d are possible", p.concurrency, maxConcurrency)
	case p.requests > 0 && (p.request < 1 || p.request > maxMessage || p.reply < 1 || p.reply > maxMessage):
		return nil, fmt.Errorf("requests of %d bytes with replies of %d: 1 to %d are possible", p.request, p.reply, maxMessage)
	case p.requests == 0 && (p.request > 0 || p.reply > 0):
		return nil, errors.New("a request or a reply without requests")
	case p.requests == 0 && p.fault == tcplabv1.FlowFault_FLOW_FAULT_RESET:
		return nil, errors.New("a server that resets what it has read from, and no requests")
	case p.requests == 0 && of.GetSocket().GetFastOpen():
		return nil, errors.New("fast_open connects with the first write, and there are no requests")
	}
	switch spec.GetClose() {
	case tcplabv1.ConnectClose_CONNECT_CLOSE_UNSPECIFIED, tcplabv1.ConnectClose_CONNECT_CLOSE_CLIENT:
		p.clientFirst = true
	case tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER:
	case tcplabv1.ConnectClose_CONNECT_CLOSE_CLIENT_ABORT:
		p.clientFirst, p.abort = true, true
	case tcplabv1.ConnectClose_CONNECT_CLOSE_SERVER_ABORT:
		p.abort = true
	default:
		return nil, fmt.Errorf("no known way to close: %v", spec.GetClose())
	}
	if p.count == 0 && p.duration == 0 {
		p.count = 1
	}
	if rate > 0 {
		p.apart = time.Duration(float64(time.Second) / rate)
	}
	switch {
	case p.concurrency > 0:
	case rate > 0:
		p.concurrency = openLoopConcurrency
	default:
		p.concurrency = 1
	}
	if p.backlog == 0 {
		p.backlog = defaultBacklog
	}
	return p, nil
}

// due is when a connection of an open loop is due, after the flow's start.
func (p *plan) due(i uint64) time.Duration { return time.Duration(i) * p.apart }
