//go:build linux

package agent

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// events are what has happened in a trial, for any number of watchers. Each
// watcher sees all of them in their order. The zero value is empty.
type events struct {
	mu      sync.Mutex
	all     []*tcplabv1.WatchTrialResponse
	changed chan struct{} // closed at the next event; nil: nobody waits
}

// add appends an event, now.
func (e *events) add(event *tcplabv1.WatchTrialResponse) {
	event.Time = timestamppb.New(time.Now())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

// follow calls send for each event from the first on, and returns after the
// trial's end, or with the error of send or ctx.
func (e *events) follow(ctx context.Context, send func(*tcplabv1.WatchTrialResponse) error) error {
	for next := 0; ; next++ {
		event, err := e.wait(ctx, next)
		if err != nil {
			return err
		}
		if err := send(event); err != nil {
			return err
		}
		if event.GetTrialEnded() != nil {
			return nil
		}
	}
}

// wait returns the event with that number as soon as there is one.
func (e *events) wait(ctx context.Context, number int) (*tcplabv1.WatchTrialResponse, error) {
	for {
		e.mu.Lock()
		if number < len(e.all) {
			defer e.mu.Unlock()
			return e.all[number], nil
		}
		if e.changed == nil {
			e.changed = make(chan struct{})
		}
		changed := e.changed
		e.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
