//go:build linux

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/schedule"
)

// play begins the schedules of a trial's links. A change that fails ends ctx's trial through fail. Who has
// the deployment busy calls it.
func (d *deployment) play(ctx context.Context, fail context.CancelCauseFunc) (*schedule.Playing, error) {
	var parts []schedule.Part
	for i, l := range d.standing.Links {
		for way, direction := range d.standing.Spec(i).Directions {
			if len(direction.Schedule.Steps) == 0 {
				continue
			}
			d.played = append(d.played, played{link: i, way: way})
			parts = append(parts, schedule.Part{Direction: direction, Change: func(m schedule.Moment) error {
				err := l.Change(way, m.To)
				if err == nil && !m.Passing {
					err = d.drifted(i, way, m.To)
				}
				if err != nil {
					return fmt.Errorf("link %s %s: %w", d.plan.Links[i].Name, wayWord(way), err)
				}
				return nil
			}})
		}
	}
	return schedule.Play(ctx, parts, fail)
}

// wayWord names a direction for people.
func wayWord(way int) string { return [2]string{"forward", "backward"}[way] }

// played is a direction that a trial's schedule may have changed.
type played struct{ link, way int }

// drifted says what a direction is not that it was asked to be.
func (d *deployment) drifted(i, way int, asked link.Direction) error {
	applied, err := d.standing.Links[i].ReadBack()
	if err != nil {
		return fmt.Errorf("read it back: %w", err)
	}
	var all []string
	for path, drift := range asked.Drift(applied[way], resolution(d.choice.kinds[i])) {
		if path != "" {
			path = "path " + path + ": "
		}
		all = append(all, path+strings.Join(drift, ", "))
	}
	if len(all) > 0 {
		slices.Sort(all)
		return fmt.Errorf("what is in force is not what was asked: %s", strings.Join(all, "; "))
	}
	return nil
}

// restore gives links the shapes that they had before any schedule.
func (d *deployment) restore() error {
	for _, p := range d.played {
		first := d.standing.Spec(p.link).Directions[p.way]
		first.Schedule = link.Schedule{}
		if err := d.standing.Links[p.link].Change(p.way, first); err != nil {
			return fmt.Errorf("put link %s back to its first shape: %w", d.plan.Links[p.link].Name, err)
		}
	}
	d.played = nil
	return nil
}

// rearm has all links start anew: with the shapes before any schedule, random generators, numbers of
// packets, traces and counters.
func (d *deployment) rearm() error {
	if err := d.restore(); err != nil {
		return err
	}
	for i, l := range d.standing.Links {
		if err := l.Rearm(); err != nil {
			return fmt.Errorf("re-arm link %s: %w", d.plan.Links[i].Name, err)
		}
	}
	return nil
}
