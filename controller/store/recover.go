package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// interrupted is what a run says that its process left unended.
const interrupted = "the process that drove the run ended before it did; start it again"

// recover settles what a dead process left: it ends its runs and deletes the
// files that were on their way. The caller holds the lock, so that nobody
// drives them any more.
//
// With lasting, runs whose plan is kept are left to be taken up.
func (s *Store) recover(ctx context.Context, lasting bool) error {
	if err := os.RemoveAll(s.path(incomingDir)); err != nil {
		return storageError(s.dir, "delete unfinished files", err)
	}
	runs, err := s.runs(ctx, "SELECT run FROM runs WHERE state < 3 AND NOT (? AND id IN (SELECT run_id FROM plans)) ORDER BY seq", lasting)
	if err != nil {
		return err
	}
	for _, run := range runs {
		if err := s.interrupt(ctx, run); err != nil {
			return err
		}
	}
	return nil
}

// interrupt ends a run that nobody drives, and its trial that was under way.
func (s *Store) interrupt(ctx context.Context, run *tcplabv1.Run) error {
	// Before the run is marked: where this ends early it is done again.
	if err := s.sweepArtifacts(ctx, run.GetId()); err != nil {
		return err
	}
	var under *tcplabv1.Trial
	err := s.Trials(ctx, run.GetId(), 0, func(trial *tcplabv1.Trial) (bool, error) {
		if !Ended(trial.GetState()) {
			under = trial
		}
		return under == nil, nil
	})
	if err != nil {
		return err
	}
	if under != nil {
		under.State, under.Failure = tcplabv1.RunState_RUN_STATE_FAILED, interrupted
	}
	run.State = tcplabv1.RunState_RUN_STATE_FAILED
	run.Verdict = tcplabv1.Verdict_VERDICT_INCONCLUSIVE
	run.FailureReason = tcplabv1.FailureReason_FAILURE_REASON_INTERRUPTED
	run.Failure = interrupted
	run.EndTime = timestamppb.Now()
	if err := s.Commit(ctx, run.GetId(), Change{Run: run, Trial: under, Events: []*tcplabv1.RunEvent{RunEvent(run)}}); err != nil {
		return err
	}
	s.log.Info("a run that its process left is marked as failed", "run", run.GetId())
	return nil
}

// sweepArtifacts deletes the run's files that no manifest lists: they were
// moved to their place and the transaction did not come.
func (s *Store) sweepArtifacts(ctx context.Context, runID string) error {
	const op = "delete unlisted files"
	entries, err := os.ReadDir(s.path(artifactsDir, runID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return storageError(s.dir, op, err)
	}
	for _, entry := range entries {
		listed := false
		if number, err := strconv.ParseUint(entry.Name(), 10, 32); err == nil {
			err := s.reader.QueryRowContext(ctx, "SELECT 1 FROM artifacts WHERE run_id = ? AND number = ?", runID, number).Scan(&listed)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return storageError(s.dir, op, err)
			}
		}
		if listed {
			continue
		}
		if err := os.RemoveAll(s.path(artifactsDir, runID, entry.Name())); err != nil {
			return storageError(s.dir, op, err)
		}
	}
	return nil
}
