package cli

import (
	"fmt"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// bearable is how late one frame in a hundred may be where no expectation is of a time: what the
// verification of links permits.
const bearable = 500 * time.Microsecond

// tooLate says that engines handed frames over later than the run's expectations can bear: where one
// frame in a hundred was later than a quarter of what the strictest of them permits. Empty: none did.
func tooLate(r *tcplabv1.RunReport) string {
	bears := time.Duration(0)
	for _, e := range r.GetExpectations() {
		if e.GetUnit() == "s" && e.GetPermitted() > 0 {
			permitted := time.Duration(e.GetPermitted() * 1e9 / 4)
			if bears == 0 || permitted < bears {
				bears = permitted
			}
		}
	}
	if bears == 0 {
		bears = bearable
	}
	var worst *tcplabv1.LinkReport
	links := 0
	p99 := func(l *tcplabv1.LinkReport) time.Duration { return l.GetLateness().GetSummary().GetP99().AsDuration() }
	for _, trial := range r.GetTrials() {
		for _, l := range trial.GetLinks() {
			if p99(l) <= bears {
				continue
			}
			links++
			if worst == nil || p99(l) > p99(worst) {
				worst = l
			}
		}
	}
	if worst == nil {
		return ""
	}
	s := worst.GetLateness().GetSummary()
	text := fmt.Sprintf("this machine was too busy: on %s %s one frame in a hundred came %s late or more, the latest %s; these expectations bear %s",
		worst.GetName(), arrow(worst), seconds(s.GetP99()), seconds(s.GetMax()), quantity(bears.Seconds(), "s"))
	if links > 1 {
		text += fmt.Sprintf(" (and %s)", plural(links-1, "more direction"))
	}
	return text
}

// printLateness prints what tooLate says.
func (a *app) printLateness(r *tcplabv1.RunReport) error {
	text := tooLate(r)
	if text == "" {
		return nil
	}
	_, err := fmt.Fprintln(a.Out, text+"\n")
	return err
}
