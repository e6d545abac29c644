package cli

import (
	"io"
	"slices"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// proofs is a table of what was asked of links and, in brackets, what was measured of them, with what
// that proves and, below, why not more. Its zero value is empty.
type proofs struct {
	rows    [][]string
	more    bool // than delay, rate and loss was asked of one
	reasons strings.Builder
}

// add enters a direction of a link, or a path of it.
func (p *proofs) add(l *tcplabv1.LinkReport) {
	spec, measured := l.GetSpec(), l.GetMeasured()
	arrived := measured.GetDelay().AsDuration() > 0 // a probe did
	rate := "unlimited"
	if spec.GetQueue() != nil {
		rate = "a trace" // what has a queue and no rate of its own
	}
	if spec.GetRateBps() > 0 {
		rate = beside(quantity(spec.GetRateBps(), "bit/s"), measured.GetRateBps() > 0, quantity(measured.GetRateBps(), "bit/s"))
	}
	other := strings.Join(otherTexts(spec), ", ")
	p.more = p.more || other != ""
	p.rows = append(p.rows, []string{
		l.GetName() + " " + arrow(l), engineWord(l.GetEngine()),
		beside(delayText(spec), arrived, seconds(measured.GetDelay())),
		rate,
		beside(lossText(spec), arrived || measured.GetLoss() > 0, percent(measured.GetLoss())),
		other, linkWord(l.GetVerdict()),
	})
}

// explain says below the table why a direction or path has not passed.
func (p *proofs) explain(l *tcplabv1.LinkReport) {
	if l.GetDetail() != "" {
		p.reasons.WriteString("  " + l.GetName() + " " + arrow(l) + ": " + l.GetDetail() + "\n")
	}
}

func (p *proofs) print(w io.Writer) error {
	header := []string{"LINK", "ENGINE", "DELAY", "RATE", "LOSS", "AND", "PROOF"}
	if !p.more { // than most links do
		const and = 5
		header = slices.Delete(header, and, and+1)
		for i := range p.rows {
			p.rows[i] = slices.Delete(p.rows[i], and, and+1)
		}
	}
	if err := printTable(w, header, p.rows); err != nil {
		return err
	}
	_, err := io.WriteString(w, p.reasons.String())
	return err
}

// beside sets the measured text behind the asked one.
func beside(asked string, measured bool, text string) string {
	if !measured {
		return asked
	}
	return asked + " (" + text + ")"
}
