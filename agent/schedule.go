//go:build linux

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/schedule"
)

// play begins the links' schedules, which end with ctx. A change that fails is told to fail. Who has
// the deployment busy calls it.
func (d *deployment) play(ctx context.Context, fail func(error)) (*schedule.Playing, error) {
	var parts []schedule.Part
	for i, l := range d.standing.Links {
		for way, direction := range d.plan.Links[i].Directions {
			if len(direction.Schedule.Steps) == 0 {
				continue
			}
			d.mu.Lock()
			d.played = append(d.played, played{link: i, way: way})
			d.mu.Unlock()
			var pace schedule.Pace
			if engine, ok := l.(paced); ok {
				pace = engine.RampStep
			}
			parts = append(parts, schedule.Part{Direction: direction, Pace: pace, Change: func(m schedule.Moment) error {
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

// paced is a link that pays for each change.
type paced interface {
	// RampStep is how far apart the steps of a ramp are at least (see [schedule.Pace]).
	RampStep(from, to link.Shape) time.Duration
}

// wayWord names a direction for people.
func wayWord(way int) string { return [2]string{"forward", "backward"}[way] }

// played is a direction that a schedule may have changed.
type played struct{ link, way int }

// standingSchedules are those of a lab that is not run.
type standingSchedules struct {
	playing *schedule.Playing // nil: they are not played
	log     *slog.Logger
}

// stop ends the playing and returns the first change that failed.
func (s *standingSchedules) stop() error {
	if s.playing == nil {
		return nil
	}
	err := s.playing.Stop()
	s.playing = nil
	return err
}

// startSchedules plays the schedules until the deployment's removal, a trial or a verification.
func (d *deployment) startSchedules(log *slog.Logger) error {
	release, err := d.occupy("the start of its schedules")
	if err != nil {
		return err
	}
	defer release()
	if err := d.restore(); err != nil {
		return err
	}
	d.schedules.log = log
	return d.playStanding()
}

func (d *deployment) playStanding() (err error) {
	d.schedules.playing, err = d.play(d.life, func(err error) {
		d.schedules.log.Error("a schedule has ended early", "deployment", d.id, "error", err)
	})
	return err
}

// isPlayed reports whether a schedule may have changed the direction. The caller has d.mu.
func (d *deployment) isPlayed(link, way int) bool {
	return slices.Contains(d.played, played{link: link, way: way})
}

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

// restore ends schedules that are played while the lab only stands, and gives links the shapes that they had before
// any. Who has the deployment busy calls it.
func (d *deployment) restore() error {
	// A change that failed is in the log.
	_ = d.schedules.stop()
	d.mu.Lock()
	all := d.played
	d.mu.Unlock()
	for _, p := range all {
		first := d.plan.Links[p.link].Directions[p.way]
		first.Schedule = link.Schedule{}
		if err := d.standing.Links[p.link].Change(p.way, first); err != nil {
			return fmt.Errorf("put link %s back to its first shape: %w", d.plan.Links[p.link].Name, err)
		}
	}
	d.mu.Lock()
	d.played = nil
	d.mu.Unlock()
	return nil
}

// rearm has links start anew: with the shapes before any schedule, random generators, numbers of
// packets, traces and counters.
func (d *deployment) rearm(links []int) error {
	if err := d.restore(); err != nil {
		return err
	}
	for _, i := range links {
		if err := d.standing.Links[i].Rearm(); err != nil {
			return fmt.Errorf("re-arm link %s: %w", d.plan.Links[i].Name, err)
		}
	}
	return nil
}
