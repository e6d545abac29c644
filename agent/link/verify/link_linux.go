package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/agent/link"
)

// Link measures both directions of a link that stands and judges them. The link must
// be otherwise idle; afterwards it wants [link.Link.Rearm]. The error says that
// measuring itself was not possible; a link that is not what was asked is no
// error but a verdict.
func Link(ctx context.Context, spec link.Spec, options Options) (Report, error) {
	options = options.withDefaults()
	dropped := func() (frames [2]uint64, err error) {
		if options.Counters == nil {
			return frames, nil
		}
		counts, err := options.Counters(0)
		if err != nil {
			return frames, fmt.Errorf("verify link %s: %w", spec.Name, err)
		}
		for i, c := range counts {
			frames[i] = c.Overflow + c.Failed
		}
		return frames, nil
	}
	begin := time.Now()
	deadline := begin.Add(options.Limit)
	report := Report{Name: spec.Name}

	var channels [2]*channel
	var sum [2]observation // loss counts and trains of all attempts that count
	for i, direction := range spec.Directions {
		mtu := min(spec.Ends[0].MTU, spec.Ends[1].MTU)
		plan := newSchedule(direction.Shape, mtu, options.FalseAlarm).fit(options.Limit)
		c, err := newChannel(spec, i, plan)
		if err != nil {
			return report, fmt.Errorf("verify link %s: %w", spec.Name, err)
		}
		defer c.close()
		channels[i] = c
	}
	for {
		before, err := dropped()
		if err != nil {
			return report, err
		}
		var seen [2]observation
		group, ctx := errgroup.WithContext(ctx)
		for i, c := range channels {
			group.Go(func() (err error) {
				seen[i], err = c.measure(ctx, deadline)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return report, fmt.Errorf("verify link %s: %w", spec.Name, err)
		}
		after, err := dropped()
		if err != nil {
			return report, err
		}
		again := false
		for i, c := range channels {
			seen[i].overflow = after[i] > before[i]
			if seen[i].void() == "" {
				seen[i].sent += sum[i].sent
				seen[i].received += sum[i].received
				sum[i].sent, sum[i].received = seen[i].sent, seen[i].received
			}
			if !seen[i].overrun {
				seen[i].trains = append(sum[i].trains, seen[i].trains...)
				sum[i].trains = seen[i].trains
			}
			fresh := judge(spec.Directions[i].Shape, c.plan, seen[i], options.FalseAlarm)
			if report.Attempts > 0 {
				fresh = merge(report.Directions[i], fresh)
			}
			report.Directions[i] = fresh
			again = again || fresh.Delay.again || fresh.Rate.again || fresh.Loss.again
		}
		report.Attempts++
		report.Took = time.Since(begin)
		needs := max(channels[0].plan.lasts(), channels[1].plan.lasts())
		if !again || report.Attempts >= options.Attempts || time.Until(deadline) < needs {
			return report, nil
		}
	}
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
			reports[i], errs[i] = Link(ctx, spec, one)
			return nil
		})
	}
	return reports, errors.Join(group.Wait(), errors.Join(errs...))
}
