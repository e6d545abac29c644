package netem

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
)

const (
	maxBands = 16 // TCQ_PRIO_BANDS
	minBands = 2  // TCQ_MIN_PRIO_BANDS

	prioOptions = 20 // struct tc_prio_qopt: bands, priomap
)

// prioQdisc is sch_prio, as a qdisc of several trees and not for its priorities: a filter says by which
// tree a frame goes, and one without goes by the first. It asks one tree after another for a frame
// that is due. Of the classful ones only prio bears trees that hold frames back (drr and htb
// give up at the first that has some and yields none); and the device behind it is
// always free, so that no tree waits for another.
type prioQdisc struct{ bands int }

func (prioQdisc) kind() string { return "prio" }

func (q prioQdisc) options() *nl.RtAttr {
	fixed := make([]byte, prioOptions)
	copy(fixed, numbers(uint32(max(minBands, q.bands))))
	return nl.NewRtAttr(nl.TCA_OPTIONS, fixed) // priomap: all to the first band
}

func (q *prioQdisc) decode(options []byte) error {
	fixed, err := fixed32("prio's options", options, prioOptions/4)
	if err != nil {
		return err
	}
	for _, bands := range options[4:prioOptions] {
		if bands != 0 {
			return fmt.Errorf("prio's first band is not that of every priority")
		}
	}
	q.bands = int(fixed[0])
	return nil
}
