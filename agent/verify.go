//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/verify"
	"github.com/tcplab/tcplab/agent/topology"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// unmeasured reports each direction of each link, and each path of it, as it was asked. The direction's own
// comes first, then its paths in their order.
func (d *deployment) unmeasured() []*tcplabv1.LinkReport {
	var all []*tcplabv1.LinkReport
	for i, l := range d.plan.Links {
		for way, direction := range l.Directions {
			report := func(path string, shape link.Shape) {
				all = append(all, &tcplabv1.LinkReport{
					Name: l.Name, Direction: wayOf(way), Engine: d.choice.kinds[i], Path: path, Spec: topology.ShapeMessage(shape),
				})
			}
			report("", direction.Shape)
			for _, p := range direction.Paths {
				report(p.Name, p.Shape)
			}
		}
	}
	return all
}

// place finds the reports of one direction of the link at the index, its own first.
func (d *deployment) place(reports []*tcplabv1.LinkReport, at, direction int) []*tcplabv1.LinkReport {
	for i, l := range d.plan.Links {
		for way, w := range l.Directions {
			n := 1 + len(w.Paths)
			if i == at && way == direction {
				return reports[:n]
			}
			reports = reports[n:]
		}
	}
	return nil
}

// verify measures the links with the names, or all where none is named, reads them back and re-arms
// them. No link takes longer than the limit; 0: as long as before a trial. Where it ends early the
// links start anew all the same, and so do schedules.
func (d *deployment) verify(ctx context.Context, names []string, limit time.Duration) (_ []*tcplabv1.LinkReport, err error) {
	release, err := d.occupy("a verification")
	if err != nil {
		return nil, err
	}
	defer release()
	links, err := d.linksNamed(names)
	if err != nil {
		return nil, err
	}
	ctx, cancel := d.during(ctx)
	defer cancel()
	again := d.schedules.playing != nil
	if err := d.restore(); err != nil {
		return nil, err
	}
	if again {
		defer func() { err = errors.Join(err, d.playStanding()) }()
	}
	resume, err := d.hold(links)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resume()) }()
	specs := make([]link.Spec, len(links))
	for n, i := range links {
		specs[n] = d.standing.Spec(i)
	}
	measured, err := verify.Links(ctx, specs, verify.Options{
		Limit:    limit,
		Still:    d.still,
		Counters: func(n int) ([2]link.Counters, error) { return d.standing.Links[links[n]].Counters() },
		Rearm:    func(n int) error { return d.standing.Links[links[n]].Rearm() },
	})
	if err != nil {
		err = fmt.Errorf("verify deployment %s: %w", d.id, err)
	}
	if err := errors.Join(err, d.rearm(links)); err != nil {
		return nil, err
	}
	fresh := d.unmeasured()
	for n, report := range measured {
		for way, direction := range report.Directions {
			for at, r := range d.place(fresh, links[n], way) {
				judge(r, direction[at])
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.readBack(links, fresh); err != nil {
		return nil, err
	}
	d.reports = slices.Clone(d.reports) // others may have the one before
	var reports []*tcplabv1.LinkReport
	for _, i := range links {
		for way := range 2 {
			reports = append(reports, d.place(fresh, i, way)...)
			copy(d.place(d.reports, i, way), d.place(fresh, i, way))
		}
	}
	return reports, nil
}

// judge enters what was measured of a direction or a path.
func judge(r *tcplabv1.LinkReport, s verify.Stream) {
	m := s.Measured
	r.Measured = &tcplabv1.LinkMeasurement{
		Delay: durationpb.New(m.Delay), RateBps: m.RateBps, Loss: m.Loss,
		Jitter: durationpb.New(m.Jitter), Reordered: m.Reordered, Duplicated: m.Duplicated, Corrupted: m.Corrupted,
	}
	switch s.Verdict() {
	case verify.Passed:
		r.Verdict = tcplabv1.LinkVerdict_LINK_VERDICT_PASSED
	case verify.Failed:
		r.Verdict = tcplabv1.LinkVerdict_LINK_VERDICT_FAILED
	default:
		r.Verdict = tcplabv1.LinkVerdict_LINK_VERDICT_UNPROVEN
	}
	var details []string
	for quantity, finding := range s.Findings {
		if finding.Verdict != verify.Passed {
			details = append(details, verify.Quantity(quantity).String()+": "+finding.Detail)
		}
	}
	r.Detail = strings.Join(details, "; ")
}

// readBack enters what is in force of the links, and what of it is not as asked, which fails it.
func (d *deployment) readBack(links []int, reports []*tcplabv1.LinkReport) error {
	for _, i := range links {
		if err := d.readBackLink(i, [2][]*tcplabv1.LinkReport{d.place(reports, i, 0), d.place(reports, i, 1)}); err != nil {
			return err
		}
	}
	return nil
}

// readBackLink does so for the link at the index, of whose directions are the reports. What a
// schedule has changed is not compared: it is as that says. The caller has d.mu.
func (d *deployment) readBackLink(i int, reports [2][]*tcplabv1.LinkReport) error {
	applied, err := d.standing.Links[i].ReadBack()
	if err != nil {
		return fmt.Errorf("read back link %s: %w", d.plan.Links[i].Name, err)
	}
	for way, asked := range d.plan.Links[i].Directions {
		drift := asked.Drift(applied[way], resolution(d.choice.kinds[i]))
		if d.isPlayed(i, way) {
			drift = nil
		}
		for _, r := range reports[way] {
			if shape := applied[way].ShapeOf(r.GetPath()); shape != nil {
				r.Applied = topology.ShapeMessage(*shape)
			}
			if r.Drift = drift[r.GetPath()]; len(r.GetDrift()) > 0 {
				r.Verdict = tcplabv1.LinkVerdict_LINK_VERDICT_FAILED
				details := append([]string{"read back: " + strings.Join(r.GetDrift(), ", ")}, r.GetDetail())
				r.Detail = strings.Trim(strings.Join(details, "; "), "; ")
			}
		}
	}
	return nil
}

// resolution is how finely an engine sets what it is asked for.
func resolution(engine tcplabv1.Engine) link.Resolution {
	if engine != tcplabv1.Engine_ENGINE_NETEM {
		return link.Resolution{}
	}
	return link.Resolution{
		Rate:        7,                // whole bytes in a second
		Time:        time.Microsecond, // codel's and pie's; netem's own are finer (PSCHED_TICKS2NS)
		Probability: 1e-9,             // 32 bits
		Deviation:   1.0 / 1024,       // of tables of 16-bit numbers
	}
}

// lateness is what an engine knows of how well it kept time; netem knows nothing.
type lateness interface {
	Lateness() ([2]link.Lateness, error)
}

// latenessMessage is a histogram as it travels.
func latenessMessage(l *link.Lateness) *tcplabv1.LinkLateness {
	m := &tcplabv1.LinkLateness{Summary: &tcplabv1.LatencySummary{
		Count: uint32(min(l.Count(), math.MaxUint32)),
		Min:   durationpb.New(l.Min()), Mean: durationpb.New(l.Mean()),
		P50: durationpb.New(l.Quantile(0.5)), P90: durationpb.New(l.Quantile(0.9)), P99: durationpb.New(l.Quantile(0.99)),
		Max: durationpb.New(l.Max()),
	}}
	for upper, count := range l.Buckets() {
		m.Buckets = append(m.Buckets, &tcplabv1.LatenessBucket{Upper: durationpb.New(upper), Count: count})
	}
	return m
}
