package schedule

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tcplab/tcplab/agent/link"
)

// Part is one direction to be played.
type Part struct {
	Direction link.Direction
	Pace      Pace               // of the engine; may be nil
	Change    func(Moment) error // makes the direction so; not called by two goroutines at once
}

// Playing is the parts of a trial under way.
type Playing struct {
	cancel context.CancelFunc
	group  *errgroup.Group
}

// Play makes what happens at 0 so before it returns, and the rest at its
// times from then on, each part on a goroutine of its own. They end when their
// courses do, when ctx does, when a change fails, of any part, which is told to failed at once, or by
// [Playing.Stop], which the caller owes where err is nil.
func Play(ctx context.Context, parts []Part, failed func(error)) (*Playing, error) {
	type voice struct {
		Part
		course *Course
		next   Moment
	}
	var voices []voice
	for _, part := range parts {
		v := voice{Part: part, course: New(part.Direction, part.Pace)}
		var more bool
		for v.next, more = v.course.Next(); more && v.next.At == 0; v.next, more = v.course.Next() {
			if err := v.change(v.next); err != nil {
				return nil, err
			}
		}
		if more {
			voices = append(voices, v)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for _, v := range voices {
		group.Go(func() error {
			if err := v.play(ctx, v.course, v.next, begin); err != nil {
				failed(err)
				return err
			}
			return nil
		})
	}
	return &Playing{cancel: cancel, group: group}, nil
}

// Stop ends the playing and returns the first change that failed. When it has returned no
// more is made.
func (p *Playing) Stop() error {
	p.cancel()
	return p.group.Wait()
}

// play follows a course from its moment next. Every step of the schedule is taken in its order, however late
// the host is; only what is passing is left out where the next is due as well.
func (p Part) play(ctx context.Context, course *Course, next Moment, begin time.Time) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for more := true; more; {
		this := next
		timer.Reset(this.At - time.Since(begin))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		next, more = course.Next()
		if this.Passing && more && next.At <= time.Since(begin) {
			continue
		}
		if err := p.change(this); err != nil {
			return err
		}
	}
	return nil
}

func (p Part) change(m Moment) error {
	if err := p.Change(m); err != nil {
		return fmt.Errorf("schedule at %v: %w", m.At, err)
	}
	return nil
}
