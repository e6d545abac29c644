package netem

import (
	"github.com/vishvananda/netlink/nl"

	"github.com/tcplab/tcplab/agent/link"
)

// fifoQdisc is sch_fifo: by frames (pfifo), by bytes (bfifo), or by frames with the oldest
// dropped (pfifo_head_drop).
type fifoQdisc struct {
	unit  unit
	head  bool   // the oldest is dropped; only by frames
	limit uint32 // frames or bytes, the frame in service included
}

func (q fifoQdisc) kind() string {
	switch {
	case q.head:
		return "pfifo_head_drop"
	case q.unit == bytes:
		return "bfifo"
	}
	return "pfifo"
}

func (q fifoQdisc) options() *nl.RtAttr {
	return nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(q.limit)) // struct tc_fifo_qopt
}

func decodeFIFO(kind string, options []byte) (leaf, error) {
	numbers, err := fixed32(kind, options, 1)
	if err != nil {
		return nil, err
	}
	q := fifoQdisc{head: kind == "pfifo_head_drop", limit: numbers[0]}
	if kind == "bfifo" {
		q.unit = bytes
	}
	return q, nil
}

func (q fifoQdisc) queue(frame int) link.Queue {
	var queue link.Queue
	if q.head {
		queue.Discipline = link.HeadDrop
	}
	q.unit.limit(&queue, q.limit, frame)
	return queue
}

func (q fifoQdisc) limits() uint32 { return q.limit }

func (q fifoQdisc) counts(s state) outcome { return outcome{overflow: s.drops} }

// become: a head-drop has no way to change (sch_fifo.c: pfifo_head_drop_qdisc_ops), the others have.
func (q fifoQdisc) become(to leaf) error {
	next, ok := to.(fifoQdisc)
	if !ok || next.kind() != q.kind() {
		return another(q, to)
	}
	if q.head && next.limit != q.limit {
		return errHeadDrop
	}
	return nil
}
