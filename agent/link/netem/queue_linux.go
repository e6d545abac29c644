package netem

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
)

// queueQdisc is sch_fifo, in its form for frames (pfifo) or for bytes (bfifo).
type queueQdisc struct {
	bytes bool
	limit uint32 // frames or bytes, the frame in service included
}

func (q queueQdisc) kind() string {
	if q.bytes {
		return "bfifo"
	}
	return "pfifo"
}

func (q queueQdisc) options() *nl.RtAttr {
	return nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(q.limit)) // struct tc_fifo_qopt
}

func (q *queueQdisc) decode(kind string, options []byte) error {
	if len(options) < 4 {
		return fmt.Errorf("%s's options have %d bytes, want 4", kind, len(options))
	}
	*q = queueQdisc{bytes: kind == "bfifo", limit: binary.NativeEndian.Uint32(options)}
	return nil
}
