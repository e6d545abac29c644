package wire

import (
	"sort"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// opportunities are the moments at which a traced bottleneck can send, in order.
type opportunities struct {
	trace *link.Trace
	epoch int64 // when this round began
	next  int   // of the trace's moments
}

// restart begins with the trace's first moment.
func (o *opportunities) restart(epoch int64) { o.epoch, o.next = epoch, 0 }

// peek is the next moment; false: there is none any more.
func (o *opportunities) peek() (int64, bool) {
	if o.next == len(o.trace.Opportunities) {
		return 0, false
	}
	return o.epoch + int64(o.trace.Opportunities[o.next]), true
}

// advance goes on to the moment behind the next. The last one is the period of a trace that
// is repeated: the first of the next round may be at the same time.
func (o *opportunities) advance() {
	o.next++
	if o.next == len(o.trace.Opportunities) && !o.trace.Once {
		o.epoch += o.period()
		o.next = 0
	}
}

func (o *opportunities) period() int64 {
	return int64(o.trace.Opportunities[len(o.trace.Opportunities)-1])
}

// skip goes on to the first moment after the given time, past all that nobody used. It takes
// O(log n) steps, however long ago the last one was.
func (o *opportunities) skip(until int64) {
	if next, some := o.peek(); !some || next > until {
		return
	}
	if rounds := (until - o.epoch) / o.period(); rounds > 0 && !o.trace.Once {
		o.epoch += rounds * o.period()
		o.next = 0
	}
	after := func() int {
		return sort.Search(len(o.trace.Opportunities), func(i int) bool {
			return o.trace.Opportunities[i] > time.Duration(until-o.epoch)
		})
	}
	o.next = max(o.next, after())
	if o.next == len(o.trace.Opportunities) && !o.trace.Once {
		o.epoch += o.period()
		o.next = after()
	}
}

// nextTraced is next for a bottleneck that follows a trace, as mahimahi's does
// (link_queue.cc): each moment sends so many bytes of what waits; what is left of them when the
// queue is empty is lost, and a frame for which they do not suffice goes on with the next moment's.
// A frame that comes in such a moment is too late for it.
func (p *path) nextTraced(now int64) *frame {
	for {
		if p.left > 0 {
			if f := p.spend(); f != nil {
				return f
			}
		}
		if p.sending == nil && p.waiting.head == nil {
			first := p.delayed.first()
			if first == nil || first.leaves > now {
				return nil
			}
			p.trace.skip(first.leaves)
		}
		due, some := p.trace.peek()
		if !some {
			p.admit(now)
			return nil
		}
		p.admit(min(now, due-1))
		if due > now {
			return nil
		}
		p.trace.advance()
		p.moment, p.left = due, p.trace.trace.BytesOrDefault()
	}
}

// spend uses what is left of a moment, until a frame has been sent or nothing is left.
func (p *path) spend() *frame {
	if p.sending == nil {
		if p.sending = p.waiting.take(p.moment); p.sending == nil {
			p.left = 0
			return nil
		}
		p.remains = p.sending.size
	}
	n := min(p.left, p.remains)
	p.left -= n
	p.remains -= n
	if p.remains > 0 {
		return nil
	}
	f := p.sending
	p.sending = nil
	f.leaves = p.moment
	return f
}

// dueTraced is due for a bottleneck that follows a trace. A frame that does not fit into
// one moment is not through then.
func (p *path) dueTraced() (int64, bool) {
	if p.sending != nil || p.waiting.head != nil {
		if p.left > 0 {
			return p.moment, true
		}
		return p.trace.peek()
	}
	first := p.delayed.first()
	if first == nil {
		return 0, false
	}
	ahead := p.trace
	ahead.skip(first.leaves)
	return ahead.peek()
}
