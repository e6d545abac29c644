package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// eventBatch is how many events Watch reads at a time.
const eventBatch = 256

// RunEvent is the event that says what the run is now.
func RunEvent(run *tcplabv1.Run) *tcplabv1.RunEvent {
	return &tcplabv1.RunEvent{Event: &tcplabv1.RunEvent_Run{Run: proto.CloneOf(run)}}
}

// appendEvents gives the events the next cursors, and the time.
func appendEvents(ctx context.Context, conn *sql.Conn, runID string, events []*tcplabv1.RunEvent) error {
	if len(events) == 0 {
		return nil
	}
	var cursor uint64
	err := conn.QueryRowContext(ctx, "UPDATE runs SET cursor = cursor + ? WHERE id = ? RETURNING cursor", len(events), runID).Scan(&cursor)
	if err != nil {
		return err
	}
	cursor -= uint64(len(events))
	now := timestamppb.Now()
	for _, event := range events {
		cursor++
		event.Cursor, event.Time = cursor, now
		blob, err := proto.Marshal(event)
		if err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, "INSERT INTO events (run_id, cursor, judged, event) VALUES (?, ?, ?, ?)",
			runID, cursor, event.GetExpectation() != nil, blob)
		if err != nil {
			return err
		}
	}
	return nil
}

// Watch delivers the run's events after a cursor, each once and in order,
// first those that happened and then those that happen, and returns nil when
// the run has ended and its last event is delivered. It ends early with
// deliver's error or the context's, when the store closes, and in a reader at
// the last event so far. alive, where given, is asked before each wait: it
// returns why no more events can come (the run's driver could not store them).
func (s *Store) Watch(ctx context.Context, runID string, after uint64, deliver func(*tcplabv1.RunEvent) error, alive func() error) error {
	for {
		more := s.changed.wait()
		// The state first: a state that has ended was committed with the run's
		// last event, so that the read that follows has it.
		ended, err := s.hasEnded(ctx, runID)
		if err != nil {
			return err
		}
		var dead error
		if alive != nil {
			dead = alive()
		}
		for {
			events, err := s.Events(ctx, runID, after, eventBatch)
			if err != nil {
				return err
			}
			for _, event := range events {
				if err := deliver(event); err != nil {
					return err
				}
				after = event.GetCursor()
			}
			if len(events) < eventBatch {
				break
			}
		}
		switch {
		case ended:
			return nil
		case dead != nil:
			return dead
		case s.ReadOnly():
			return rpcerr.New(codes.Unavailable, rpcerr.Busy, "ask the tcplab that drives it",
				"watch run %s: another process drives it", runID)
		case s.changed.isClosed():
			return rpcerr.New(codes.Unavailable, "", "", "watch run %s: the controller has ended", runID)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("watch run %s: %w", runID, context.Cause(ctx))
		}
	}
}

// Wake makes every Watch ask again whether its run is alive.
func (s *Store) Wake() { s.changed.wake() }

func (s *Store) hasEnded(ctx context.Context, runID string) (bool, error) {
	var state tcplabv1.RunState
	err := s.reader.QueryRowContext(ctx, "SELECT state FROM runs WHERE id = ?", runID).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		return false, noRun(runID, "")
	}
	return Ended(state), storageError(s.dir, "read a run", err)
}

// Events reads at most limit events after a cursor, in order.
func (s *Store) Events(ctx context.Context, runID string, after uint64, limit int) ([]*tcplabv1.RunEvent, error) {
	return s.events(ctx, "SELECT event FROM events WHERE run_id = ? AND cursor > ? ORDER BY cursor LIMIT ?", runID, after, limit)
}

// Expectations reads all results of a run's expectations in the order of their
// evaluation.
func (s *Store) Expectations(ctx context.Context, runID string) ([]*tcplabv1.ExpectationResult, error) {
	events, err := s.events(ctx, "SELECT event FROM events WHERE run_id = ? AND judged = 1 ORDER BY cursor", runID)
	if err != nil {
		return nil, err
	}
	results := make([]*tcplabv1.ExpectationResult, len(events))
	for i, event := range events {
		results[i] = event.GetExpectation()
	}
	return results, nil
}

func (s *Store) events(ctx context.Context, query string, args ...any) ([]*tcplabv1.RunEvent, error) {
	events, err := selectMessages[tcplabv1.RunEvent](ctx, s.reader, query, args...)
	return events, storageError(s.dir, "read events", err)
}
