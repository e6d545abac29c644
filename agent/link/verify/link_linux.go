package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/agent/link"
)

// Link measures both directions of a link that stands and judges them. The link must
// be otherwise idle; afterwards it wants [link.Link.Rearm]. The error says that
// measuring itself was not possible; a link that is not what was asked is no
// error but a verdict.
func Link(ctx context.Context, spec link.Spec, options Options) (Report, error) {
	report, err := verify(ctx, spec, options.withDefaults())
	if err != nil {
		return report, fmt.Errorf("verify link %s: %w", spec.Name, err)
	}
	return report, nil
}

func verify(ctx context.Context, spec link.Spec, options Options) (Report, error) {
	begin := time.Now()
	deadline := begin.Add(options.Limit)
	report := Report{Name: spec.Name}

	var channels [2]*channel
	var judges [2][]*judge
	needs := time.Duration(0)
	for i, direction := range spec.Directions {
		all := subjects(direction, min(spec.Ends[0].MTU, spec.Ends[1].MTU), options.Still)
		plans := make([]plan, len(all))
		for n, s := range all {
			plans[n] = newPlan(s, options.Limit, options.FalseAlarm).fit(options.Limit)
			needs = max(needs, plans[n].lasts())
			judges[i] = append(judges[i], &judge{subject: s, plan: plans[n], falseAlarm: options.FalseAlarm / float64(len(all))})
		}
		c, err := newChannel(spec, i, all, plans)
		if err != nil {
			return report, err
		}
		defer c.close()
		channels[i] = c
		report.Directions[i] = make(Direction, len(all))
	}
	var armed time.Duration // since the epoch; 0: not known
	again := true           // from the first packet on
	for {
		if again && options.Rearm != nil {
			if err := options.Rearm(0); err != nil {
				return report, err
			}
			armed = epoch()
			for _, j := range slices.Concat(judges[:]...) {
				j.frames = nil
			}
		}
		before, err := options.dropped()
		if err != nil {
			return report, err
		}
		roomless, err := backlogDrops()
		if err != nil {
			return report, err
		}
		var seen [2][]observation
		group, ctx := errgroup.WithContext(ctx)
		for i, c := range channels {
			group.Go(func() (err error) {
				seen[i], err = c.measure(ctx, deadline)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return report, err
		}
		after, err := options.dropped()
		if err != nil {
			return report, err
		}
		roomlessAfter, err := backlogDrops()
		if err != nil {
			return report, err
		}
		retry := false
		again = false
		for i := range channels {
			for n, j := range judges[i] {
				seen[i][n].overflow = after[i] > before[i]
				seen[i][n].overrun = seen[i][n].overrun || roomlessAfter > roomless
				seen[i][n].armed = armed
				fresh := j.judge(seen[i][n])
				if report.Attempts > 0 {
					fresh = merge(report.Directions[i][n], fresh)
				}
				report.Directions[i][n] = fresh
				retry = retry || fresh.again()
				// Others' frames took numbers that were meant for probes.
				again = again || fresh.Findings[Loss].again && seen[i][n].foreign
			}
		}
		report.Attempts++
		report.Took = time.Since(begin)
		if !retry || report.Attempts >= options.Attempts || time.Until(deadline) < needs {
			return report, nil
		}
	}
}

// dropped is how many frames each direction has lost for want of room, or by its engine's own fault.
func (o Options) dropped() (frames [2]uint64, err error) {
	if o.Counters == nil {
		return frames, nil
	}
	counts, err := o.Counters(0)
	for i, c := range counts {
		frames[i] = c.Overflow + c.Early + c.Failed
	}
	return frames, err
}

// Links measures several links, Options.Parallel at once. Reports are in the order of specs.
func Links(ctx context.Context, specs []link.Spec, options Options) ([]Report, error) {
	options = options.withDefaults()
	reports := make([]Report, len(specs))
	errs := make([]error, len(specs))
	var group errgroup.Group
	group.SetLimit(options.Parallel)
	for i, spec := range specs {
		group.Go(func() error {
			one := options
			if options.Counters != nil {
				one.Counters = func(int) ([2]link.Counters, error) { return options.Counters(i) }
			}
			if options.Rearm != nil {
				one.Rearm = func(int) error { return options.Rearm(i) }
			}
			reports[i], errs[i] = Link(ctx, spec, one)
			return nil
		})
	}
	return reports, errors.Join(group.Wait(), errors.Join(errs...))
}
