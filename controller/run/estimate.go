package run

import (
	"math"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// What an estimate takes as given.
const (
	// trialOverhead is what a trial takes beside its experiments: it is built
	// in tens of milliseconds, and its links are probed for up to a second.
	trialOverhead = 700 * time.Millisecond
	// initialWindow is the data a connection sends in its first round: ten
	// segments of 1460 bytes (RFC 6928).
	initialWindow = 10 * 1460
	// delayedAck is how long Linux delays an acknowledgement at least
	// (TCP_DELACK_MIN, include/net/tcp.h).
	delayedAck = 40 * time.Millisecond
)

// estimate is about how long one trial of a lab takes, from what the lab says:
//
//	trial       = overhead + Σ experiments
//	experiment  = the end of the last flow, at most its timeout
//	flow        = the last end of those that it comes after + its start + its time,
//	              at most its duration, as often as it is repeated, and the gaps
//	bulk        = R + R·⌈log2(N/IW + 1)⌉ + 8N/C, at its own rate where that is lower, or
//	              R + its duration
//	connect     = n/concurrency or the last's due time, times R + exchanges + hold
//	transaction = R + n·(R + server time + serialisation) + (n-1)·think time, n those of a
//	              connection, and n·(R + 40 ms) where Nagle's algorithm holds a second write
//	              at a rate r the greater of that and (N-1)/r + one of them, N those of all
//	http        = R + Σ (R or 2R + server time + serialisation) / connections
//	burst       = R + the delay there + 8N/C + its gaps
//
// R is the sum of the delays there and back on the path with the fewest links,
// C the lowest rate on it. Losses, queues and competing flows are left out.
func estimate(lab *tcplabv1.Lab) time.Duration {
	sum := trialOverhead
	for _, experiment := range lab.GetExperiments() {
		sum += min(lastEnd(lab, experiment), experimentTimeout(experiment))
	}
	return sum
}

// lastEnd is when the last flow of an experiment ends.
func lastEnd(lab *tcplabv1.Lab, experiment *tcplabv1.Experiment) time.Duration {
	const never = math.MaxInt64 / 4 // sums of a few stay in range
	ends := map[string]time.Duration{}
	flows := map[string]*tcplabv1.Flow{}
	for _, flow := range experiment.GetFlows() {
		flows[flow.GetName()] = flow
	}
	var end func(flow *tcplabv1.Flow) time.Duration
	end = func(flow *tcplabv1.Flow) time.Duration {
		if known, ok := ends[flow.GetName()]; ok {
			return known
		}
		var begin time.Duration
		for _, name := range flow.GetAfter() {
			begin = max(begin, end(flows[name]))
		}
		there, back := route(lab, flow.GetClient(), flow.GetServer())
		takes := flowTime(flow, there, back)
		if d := flow.GetDuration().AsDuration(); d > 0 {
			takes = min(takes, d)
		}
		if times := time.Duration(max(1, flow.GetRepeat())); times > 1 {
			takes = min(never, saturate(times, takes)+saturate(times-1, flow.GetRepeatGap().AsDuration()))
		}
		ends[flow.GetName()] = min(never, begin+flow.GetStart().AsDuration()+takes)
		return ends[flow.GetName()]
	}
	var last time.Duration
	for _, flow := range experiment.GetFlows() {
		last = max(last, end(flow))
	}
	return last
}

func flowTime(flow *tcplabv1.Flow, there, back way) time.Duration {
	rtt := there.delay + back.delay
	if bulk := flow.GetBulk(); bulk != nil {
		if bulk.GetDuration() != nil {
			return rtt + bulk.GetDuration().AsDuration()
		}
		rounds := math.Ceil(math.Log2(float64(bulk.GetBytes())/initialWindow + 1))
		for _, limit := range []float64{bulk.GetRateBps(), bulk.GetPacingBps() * float64(max(1, bulk.GetStreams()))} {
			if limit > 0 && (there.rate == 0 || limit < there.rate) {
				there.rate = limit
			}
		}
		return rtt + time.Duration(rounds)*rtt + there.serialise(bulk.GetBytes())
	}
	if page := flow.GetHttp(); page != nil {
		return httpTime(page, rtt, there, back)
	}
	if burst := flow.GetBurst(); burst != nil {
		return rtt + burstTime(burst, there)
	}
	if connect := flow.GetConnect(); connect != nil {
		return connectTime(connect, rtt, there, back)
	}
	t := flow.GetTransaction()
	var request uint64
	for _, write := range t.GetWrites() {
		request += uint64(write)
	}
	one := rtt + t.GetServerTime().AsDuration() + there.serialise(request) + back.serialise(t.GetReply())
	if socket := flow.GetSocket(); len(t.GetWrites()) > 1 && socket != nil && socket.NoDelay != nil && !socket.GetNoDelay() {
		one += rtt + delayedAck
	}
	all := max(1, t.GetCount())
	count := time.Duration((all-1)/max(1, t.GetConnections()) + 1)
	if t.GetRate() > 0 {
		due := time.Duration(min(float64(all-1)/t.GetRate()*float64(time.Second), math.MaxInt64/4))
		return rtt + max(saturate(count, one), due+one)
	}
	return rtt + saturate(count, one) + saturate(count-1, t.GetThinkTime().AsDuration())
}

// connectTime is how long connections take, each of a handshake, its exchanges, its idleness and its end.
// Those of a flow without a count end with its duration.
func connectTime(connect *tcplabv1.Connect, rtt time.Duration, there, back way) time.Duration {
	exchange := rtt + there.serialise(uint64(connect.GetRequest())) + back.serialise(uint64(connect.GetReply()))
	one := min(math.MaxInt64/8, rtt+saturate(time.Duration(connect.GetRequests()), exchange)+connect.GetHold().AsDuration())
	if connect.GetCount() == 0 {
		return math.MaxInt64 / 4
	}
	if connect.GetRate() > 0 {
		due := time.Duration(min(float64(connect.GetCount()-1)/connect.GetRate()*float64(time.Second), math.MaxInt64/8))
		return due + one + rtt
	}
	rounds := (connect.GetCount()-1)/max(1, connect.GetConcurrency()) + 1
	return saturate(time.Duration(rounds), one) + rtt
}

// httpTime is how long a page takes on the connections that it may have, each request after the one before
// it; proxies, pipelines and what goes wrong are left out.
func httpTime(page *tcplabv1.Http, rtt time.Duration, there, back way) time.Duration {
	if d := page.GetDuration().AsDuration(); d > 0 {
		return rtt + d
	}
	client := page.GetClient()
	var sum time.Duration
	var count time.Duration
	objects := page.GetObjects()
	if document := page.GetDocument(); document != nil {
		objects = append([]*tcplabv1.HttpObject{document}, objects...)
	}
	for _, o := range objects {
		n := time.Duration(max(1, o.GetCount()))
		one := rtt + o.GetServerTime().AsDuration() + there.serialise(o.GetBody()) + back.serialise(o.GetSize())
		if client.Persistent != nil && !client.GetPersistent() {
			one += rtt
		}
		sum, count = sum+saturate(n, one), count+n
	}
	if requests := time.Duration(page.GetRequests()); requests > 0 && count > 0 {
		sum = saturate(requests, sum/count)
	}
	return rtt + sum/time.Duration(max(1, client.GetConnections()))
}

// burstTime is how long the writes of a burst and its gaps take, and the last
// write to arrive.
func burstTime(burst *tcplabv1.Burst, there way) time.Duration {
	var bytes uint64
	var gaps time.Duration
	for i, write := range burst.GetWrites() {
		bytes += uint64(write)
		if n := len(burst.GetGaps()); n > 0 {
			gaps += burst.GetGaps()[min(i, n-1)].AsDuration()
		}
	}
	return there.delay + saturate(time.Duration(max(1, burst.GetCount())), there.serialise(bytes)+gaps)
}

// saturate multiplies, and stays in range: an estimate of centuries is as good
// as one of millennia.
func saturate(n, d time.Duration) time.Duration {
	if d > 0 && n > math.MaxInt64/4/d {
		return math.MaxInt64 / 4
	}
	return n * d
}

// way is one direction of a path.
type way struct {
	delay time.Duration
	rate  float64 // bit/s; 0: unlimited
}

func (w way) add(shape *tcplabv1.Shape) way {
	w.delay += shape.GetDelay().AsDuration()
	if rate := shape.GetRateBps(); rate > 0 && (w.rate == 0 || rate < w.rate) {
		w.rate = rate
	}
	return w
}

func (w way) serialise(bytes uint64) time.Duration {
	if w.rate == 0 {
		return 0
	}
	seconds := float64(bytes) * 8 / w.rate
	return time.Duration(min(seconds*float64(time.Second), math.MaxInt64/4))
}

// route walks the lab breadth-first and returns both ways of the path with the
// fewest links; of nodes that no path joins, ways without any delay.
func route(lab *tcplabv1.Lab, from, to string) (there, back way) {
	type reached struct {
		node        string
		there, back way
	}
	seen := map[string]bool{from: true}
	for queue := []reached{{node: from}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at.node == to {
			return at.there, at.back
		}
		for _, link := range lab.GetLinks() {
			next, out, in := link.GetB().GetNode(), link.GetForward(), link.GetBackward()
			if next == at.node {
				next, out, in = link.GetA().GetNode(), in, out
			} else if link.GetA().GetNode() != at.node {
				continue
			}
			if !seen[next] {
				seen[next] = true
				queue = append(queue, reached{next, at.there.add(out.GetShape()), at.back.add(in.GetShape())})
			}
		}
	}
	return way{}, way{}
}
