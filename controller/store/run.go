package store

import (
	"bytes"
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

// Request makes the creation of a run idempotent.
type Request struct {
	ID     string // given by the client; empty: every request makes a run
	Digest []byte // of all that was asked for
}

// Change is what one transaction writes of one run. What is unset stays as it
// is.
type Change struct {
	// Run is the run's new content. A state that says it has ended is the last
	// change of the run.
	Run *tcplabv1.Run
	// Trial is a trial that started, or its new content.
	Trial *tcplabv1.Trial
	// Files of Trial, whole and checked; listed in Trial.result.artifacts.
	Files *Incoming
	// Events to append. The store sets cursor and time.
	Events []*tcplabv1.RunEvent
}

// Ended says whether nothing more happens to a run or trial of that state.
func Ended(state tcplabv1.RunState) bool {
	return state > tcplabv1.RunState_RUN_STATE_RUNNING
}

// EarlierRun is the run that the request made before, or nil. Errors: as CreateRun's.
func (s *Store) EarlierRun(ctx context.Context, req Request) (run *tcplabv1.Run, err error) {
	if req.ID == "" {
		return nil, nil
	}
	err = s.write(ctx, "look for the run", func(ctx context.Context, conn *sql.Conn) error {
		run, err = earlierRun(ctx, conn, req)
		return err
	})
	return run, err
}

// CreateRun stores a new run as pending, with a fresh ID, its time of creation
// and its first event, and returns it. A plan is kept until the run has ended, so that another
// process can take the run up; it may be nil. Where req.ID made a run before, that
// run is returned as it is now and created is false. Errors: Conflict where the
// same req.ID asked for something else.
func (s *Store) CreateRun(ctx context.Context, run *tcplabv1.Run, plan *tcplabv1.RunPlan, req Request) (_ *tcplabv1.Run, created bool, err error) {
	const op = "store the run"
	asked := run
	err = s.write(ctx, op, func(ctx context.Context, conn *sql.Conn) error {
		if req.ID != "" {
			earlier, err := earlierRun(ctx, conn, req)
			if err != nil {
				return err
			}
			if earlier != nil {
				run, created = earlier, false
				return nil
			}
		}
		run, created = proto.CloneOf(asked), true
		run.State = tcplabv1.RunState_RUN_STATE_PENDING
		run.CreateTime = timestamppb.Now()
		if err := insertRun(ctx, conn, run, req); err != nil {
			return err
		}
		if err := putPlan(ctx, conn, run.GetId(), plan); err != nil {
			return err
		}
		for name, value := range run.GetOptions().GetLabels() {
			if _, err := conn.ExecContext(ctx, "INSERT INTO run_labels (run_id, name, value) VALUES (?, ?, ?)", run.GetId(), name, value); err != nil {
				return err
			}
		}
		return appendEvents(ctx, conn, run.GetId(), []*tcplabv1.RunEvent{RunEvent(run)})
	})
	if err != nil {
		return nil, false, err
	}
	return run, created, nil
}

// earlierRun is the run that the request made before, or nil.
func earlierRun(ctx context.Context, conn *sql.Conn, req Request) (*tcplabv1.Run, error) {
	var blob, digest []byte
	err := conn.QueryRowContext(ctx, "SELECT run, request_digest FROM runs WHERE request_id = ?", req.ID).Scan(&blob, &digest)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	run, err := decodeRun(blob)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(digest, req.Digest) {
		return nil, rpcerr.New(codes.AlreadyExists, rpcerr.Conflict, "use another request ID",
			"request %q made run %s from something else", req.ID, run.GetId())
	}
	return run, nil
}

// insertRun inserts the run under an ID that is free. A lab's first IDs are two
// pairs long; where those drawn are taken a third pair follows, and so on.
func insertRun(ctx context.Context, conn *sql.Conn, run *tcplabv1.Run, req Request) error {
	const triesPerLength = 8
	for try := range 4 * triesPerLength {
		id, err := drawID(run.GetLab(), 2+try/triesPerLength)
		if err != nil {
			return err
		}
		run.Id = id
		blob, err := proto.Marshal(run)
		if err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, "INSERT INTO runs (id, lab, state, request_id, request_digest, run) VALUES (?, ?, ?, ?, ?, ?)",
			id, run.GetLab(), run.GetState(), sql.NullString{String: req.ID, Valid: req.ID != ""}, req.Digest, blob)
		if !isUnique(err) {
			return err
		}
	}
	return fmt.Errorf("no free ID for a run of lab %s", run.GetLab())
}

// Commit writes a change of an unended run, all of it or nothing. When it
// returns nil the change is on disk and watchers see it.
func (s *Store) Commit(ctx context.Context, runID string, c Change) error {
	const op = "store the run's progress"
	if c.Files != nil {
		if err := c.Files.settle(); err != nil {
			c.Files.unsettle(err)
			return err
		}
	}
	err := s.write(ctx, op, func(ctx context.Context, conn *sql.Conn) error { return apply(ctx, conn, runID, c) })
	if err != nil {
		if c.Files != nil {
			c.Files.unsettle(err)
		}
		return err
	}
	if c.Run.GetState() == tcplabv1.RunState_RUN_STATE_RUNNING {
		s.lock.announce(runID)
	} else if c.Run != nil {
		s.lock.announce("")
	}
	return nil
}

func apply(ctx context.Context, conn *sql.Conn, runID string, c Change) error {
	var state tcplabv1.RunState
	if err := conn.QueryRowContext(ctx, "SELECT state FROM runs WHERE id = ?", runID).Scan(&state); err != nil {
		return fmt.Errorf("run %s: %w", runID, err)
	}
	if Ended(state) {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.Conflict, "", "run %s has ended", runID)
	}
	if c.Run != nil {
		blob, err := proto.Marshal(c.Run)
		if err != nil {
			return err
		}
		if _, err := conn.ExecContext(ctx, "UPDATE runs SET state = ?, run = ? WHERE id = ?", c.Run.GetState(), blob, runID); err != nil {
			return err
		}
		if Ended(c.Run.GetState()) {
			if _, err := conn.ExecContext(ctx, "DELETE FROM plans WHERE run_id = ?", runID); err != nil {
				return err
			}
		}
	}
	if c.Trial != nil {
		if err := putTrial(ctx, conn, c.Trial); err != nil {
			return err
		}
	}
	if c.Files != nil {
		if err := c.Files.list(ctx, conn); err != nil {
			return err
		}
	}
	return appendEvents(ctx, conn, runID, c.Events)
}

// putTrial inserts a trial, or replaces it.
func putTrial(ctx context.Context, conn *sql.Conn, trial *tcplabv1.Trial) error {
	bare := proto.CloneOf(trial)
	bare.Result = nil
	blob, err := proto.Marshal(bare)
	if err != nil {
		return err
	}
	var result []byte
	if trial.GetResult() != nil {
		if result, err = proto.Marshal(trial.GetResult()); err != nil {
			return err
		}
	}
	_, err = conn.ExecContext(ctx, `INSERT INTO trials (run_id, number, state, trial, result) VALUES (?1, ?2, ?3, ?4, ?5)
		ON CONFLICT (run_id, number) DO UPDATE SET state = ?3, trial = ?4, result = ?5`,
		trial.GetRunId(), trial.GetNumber(), trial.GetState(), blob, result)
	return err
}

func decodeRun(blob []byte) (*tcplabv1.Run, error) {
	run := &tcplabv1.Run{}
	if err := proto.Unmarshal(blob, run); err != nil {
		return nil, fmt.Errorf("decode a stored run: %w", err)
	}
	return run, nil
}
