package store

import (
	"context"
	"database/sql"
	"fmt"

	"google.golang.org/protobuf/proto"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Unended is a run that an earlier process left, and what it is to do.
type Unended struct {
	Run  *tcplabv1.Run
	Plan *tcplabv1.RunPlan
}

// Unended reads the runs that can be taken up, oldest first.
func (s *Store) Unended(ctx context.Context) (all []Unended, err error) {
	const op = "read the runs that were left"
	rows, err := s.reader.QueryContext(ctx, "SELECT run, plan FROM runs JOIN plans ON plans.run_id = runs.id WHERE state < 3 ORDER BY seq")
	if err != nil {
		return nil, storageError(s.dir, op, err)
	}
	defer rows.Close()
	for rows.Next() {
		var run, plan []byte
		if err := rows.Scan(&run, &plan); err != nil {
			return nil, storageError(s.dir, op, err)
		}
		u := Unended{Plan: &tcplabv1.RunPlan{}}
		if u.Run, err = decodeRun(run); err != nil {
			return nil, storageError(s.dir, op, err)
		}
		if err := proto.Unmarshal(plan, u.Plan); err != nil {
			return nil, storageError(s.dir, op, fmt.Errorf("decode a stored plan: %w", err))
		}
		all = append(all, u)
	}
	return all, storageError(s.dir, op, rows.Err())
}

// putPlan keeps a plan; nil: there is none to keep.
func putPlan(ctx context.Context, conn *sql.Conn, runID string, plan *tcplabv1.RunPlan) error {
	if plan == nil {
		return nil
	}
	blob, err := proto.Marshal(plan)
	if err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "INSERT INTO plans (run_id, plan) VALUES (?, ?)", runID, blob)
	return err
}
