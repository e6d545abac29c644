package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Last is the reference to the newest run.
const Last = "last"

// Query selects runs.
type Query struct {
	Lab       string            // only of this lab; empty: of all
	Labels    map[string]string // only with all of these
	PageSize  int               // at least 1
	PageToken string            // from the page before, of the same query
}

// Run reads the run that a reference names: its ID, "last", or a prefix that
// only one ID has. Errors: NotFound, with the ID that was probably meant;
// Ambiguous, with the IDs that have the prefix.
func (s *Store) Run(ctx context.Context, ref string) (*tcplabv1.Run, error) {
	if ref == Last {
		runs, err := s.runs(ctx, "SELECT run FROM runs ORDER BY seq DESC LIMIT 1")
		if err == nil && len(runs) == 0 {
			err = rpcerr.New(codes.NotFound, rpcerr.NotFound, "make one: tcplab run LAB", "there is no run yet")
		}
		if err != nil {
			return nil, err
		}
		return runs[0], nil
	}
	const shown = 5
	// An ID has no character beyond z, so that the range holds all that start
	// with ref; the exact one sorts first.
	runs, err := s.runs(ctx, "SELECT run FROM runs WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT ?2", ref, shown+1)
	if err != nil {
		return nil, err
	}
	switch {
	case len(runs) == 1 || len(runs) > 1 && runs[0].GetId() == ref:
		return runs[0], nil
	case len(runs) > 1:
		return nil, ambiguous(ref, runs, shown)
	}
	return nil, s.unknownRun(ctx, ref)
}

func ambiguous(ref string, runs []*tcplabv1.Run, shown int) error {
	var ids []string
	for _, run := range runs {
		ids = append(ids, run.GetId())
	}
	if len(ids) > shown {
		ids[shown] = "…"
	}
	return rpcerr.New(codes.NotFound, rpcerr.Ambiguous, "give one more character, or the whole ID",
		"%q is the start of more than one run: %s", ref, strings.Join(ids, ", "))
}

// unknownRun looks for the ID that was meant among the newest runs.
func (s *Store) unknownRun(ctx context.Context, ref string) error {
	const newest = 1000
	runs, err := s.runs(ctx, "SELECT run FROM runs ORDER BY seq DESC LIMIT ?", newest)
	if err != nil {
		return err
	}
	nearest, least := "", 3 // further away than two typing errors nothing was meant
	for _, run := range runs {
		if d := editDistance(ref, run.GetId()); d < least {
			nearest, least = run.GetId(), d
		}
	}
	return noRun(ref, nearest)
}

func noRun(ref, nearest string) error {
	remedy := "see the runs there are: tcplab runs list"
	if nearest != "" {
		remedy = fmt.Sprintf("did you mean %q?", nearest)
	}
	return rpcerr.New(codes.NotFound, rpcerr.NotFound, remedy, "there is no run %q", ref)
}

// editDistance counts the characters to insert, delete or replace between two
// short strings (Levenshtein's distance).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Runs reads a page of runs, newest first, and the token of the next page,
// which is empty on the last.
func (s *Store) Runs(ctx context.Context, q Query) (runs []*tcplabv1.Run, next string, err error) {
	before := int64(math.MaxInt64)
	if q.PageToken != "" {
		if before, err = q.decodeToken(); err != nil {
			return nil, "", err
		}
	}
	where, args := []string{"seq < ?"}, []any{before}
	if q.Lab != "" {
		where, args = append(where, "lab = ?"), append(args, q.Lab)
	}
	for name, value := range q.Labels {
		where = append(where, "EXISTS (SELECT 1 FROM run_labels WHERE run_id = id AND name = ? AND value = ?)")
		args = append(args, name, value)
	}
	rows, err := s.reader.QueryContext(ctx, "SELECT seq, run FROM runs WHERE "+strings.Join(where, " AND ")+" ORDER BY seq DESC LIMIT ?",
		append(args, q.PageSize+1)...)
	if err != nil {
		return nil, "", storageError(s.dir, "list runs", err)
	}
	defer func() { err = errors.Join(err, storageError(s.dir, "list runs", rows.Close())) }()
	var last int64
	for rows.Next() {
		if len(runs) == q.PageSize {
			return runs, q.encodeToken(last), nil
		}
		var blob []byte
		if err := rows.Scan(&last, &blob); err != nil {
			return nil, "", storageError(s.dir, "list runs", err)
		}
		run, err := decodeRun(blob)
		if err != nil {
			return nil, "", storageError(s.dir, "list runs", err)
		}
		runs = append(runs, run)
	}
	return runs, "", storageError(s.dir, "list runs", rows.Err())
}

// A page token is the place of the page's last run and a digest of the query,
// so that a token of another query is refused.
const (
	tokenPlace  = 8
	tokenDigest = 8
)

func (q Query) encodeToken(seq int64) string {
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint64(nil, uint64(seq)), q.digest()...))
}

func (q Query) decodeToken() (int64, error) {
	raw, err := base64.RawURLEncoding.DecodeString(q.PageToken)
	if err == nil && len(raw) == tokenPlace+tokenDigest {
		// Made again and compared: base64 has more than one way to write bytes.
		if seq := int64(binary.BigEndian.Uint64(raw)); q.encodeToken(seq) == q.PageToken {
			return seq, nil
		}
	}
	return 0, rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "start again without a page token",
		"the page token %q is not of this query", q.PageToken)
}

func (q Query) digest() []byte {
	h := sha256.New()
	fmt.Fprintf(h, "%q", q.Lab)
	for _, name := range slices.Sorted(maps.Keys(q.Labels)) {
		fmt.Fprintf(h, "%q%q", name, q.Labels[name])
	}
	return h.Sum(nil)[:tokenDigest]
}

// Trials calls visit with each trial of a run after a number, in order, until
// there is none or visit returns false.
func (s *Store) Trials(ctx context.Context, runID string, after uint32, visit func(*tcplabv1.Trial) (bool, error)) (err error) {
	const op = "read trials"
	rows, err := s.reader.QueryContext(ctx, "SELECT trial, result FROM trials WHERE run_id = ? AND number > ? ORDER BY number", runID, after)
	if err != nil {
		return storageError(s.dir, op, err)
	}
	defer func() { err = errors.Join(err, storageError(s.dir, op, rows.Close())) }()
	for rows.Next() {
		trial, err := scanTrial(rows)
		if err != nil {
			return storageError(s.dir, op, err)
		}
		if more, err := visit(trial); err != nil || !more {
			return err
		}
	}
	return storageError(s.dir, op, rows.Err())
}

// Trial reads one trial. Error: NotFound where it has not started.
func (s *Store) Trial(ctx context.Context, runID string, number uint32) (*tcplabv1.Trial, error) {
	trial, err := scanTrial(s.reader.QueryRowContext(ctx, "SELECT trial, result FROM trials WHERE run_id = ? AND number = ?", runID, number))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "run %s has no trial %d", runID, number)
	}
	return trial, storageError(s.dir, "read a trial", err)
}

func scanTrial(row interface{ Scan(...any) error }) (*tcplabv1.Trial, error) {
	var blob, result []byte
	if err := row.Scan(&blob, &result); err != nil {
		return nil, err
	}
	trial := &tcplabv1.Trial{}
	if err := proto.Unmarshal(blob, trial); err != nil {
		return nil, fmt.Errorf("decode a stored trial: %w", err)
	}
	if result != nil {
		trial.Result = &tcplabv1.TrialResult{}
		if err := proto.Unmarshal(result, trial.Result); err != nil {
			return nil, fmt.Errorf("decode a stored result: %w", err)
		}
	}
	return trial, nil
}

func (s *Store) runs(ctx context.Context, query string, args ...any) ([]*tcplabv1.Run, error) {
	runs, err := selectMessages[tcplabv1.Run](ctx, s.reader, query, args...)
	return runs, storageError(s.dir, "read runs", err)
}

// selectMessages runs a query of one column of messages.
func selectMessages[M any, P interface {
	*M
	proto.Message
}](ctx context.Context, db *sql.DB, query string, args ...any) (_ []P, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var messages []P
	for rows.Next() {
		var blob sql.RawBytes
		if err := rows.Scan(&blob); err != nil {
			return nil, err
		}
		m := P(new(M))
		if err := proto.Unmarshal(blob, m); err != nil {
			return nil, fmt.Errorf("decode a stored %s: %w", m.ProtoReflect().Descriptor().Name(), err)
		}
		messages = append(messages, m)
	}
	return messages, rows.Err()
}
