package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const (
	running   = tcplabv1.RunState_RUN_STATE_RUNNING
	succeeded = tcplabv1.RunState_RUN_STATE_SUCCEEDED
	failed    = tcplabv1.RunState_RUN_STATE_FAILED
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func create(t *testing.T, s *store.Store, lab string, labels map[string]string) *tcplabv1.Run {
	t.Helper()
	run, created, err := s.CreateRun(t.Context(), &tcplabv1.Run{Lab: lab, TrialsCount: 2, Options: &tcplabv1.RunOptions{Labels: labels}}, nil, store.Request{})
	if err != nil || !created {
		t.Fatalf("created %v, error %v", created, err)
	}
	return run
}

// setState commits a state and its event.
func setState(t *testing.T, s *store.Store, run *tcplabv1.Run, state tcplabv1.RunState) *tcplabv1.Run {
	t.Helper()
	run = proto.CloneOf(run)
	run.State = state
	if err := s.Commit(t.Context(), run.GetId(), store.Change{Run: run, Events: []*tcplabv1.RunEvent{store.RunEvent(run)}}); err != nil {
		t.Fatal(err)
	}
	return run
}

func trial(run *tcplabv1.Run, number uint32, state tcplabv1.RunState) *tcplabv1.Trial {
	return &tcplabv1.Trial{
		Id: fmt.Sprintf("%s.%d", run.GetId(), number), RunId: run.GetId(), Number: number, State: state,
		Lab: &tcplabv1.Lab{Name: run.GetLab()},
	}
}

// receive puts one file on its way in.
func receive(t *testing.T, s *store.Store, runID string, number uint32, name string, content []byte) (*store.Incoming, *tcplabv1.Artifact) {
	t.Helper()
	in, err := s.Receive(runID, number)
	if err != nil {
		t.Fatal(err)
	}
	artifact := announce(name, content)
	if err := in.Put(artifact, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return in, artifact
}

func announce(name string, content []byte) *tcplabv1.Artifact {
	sum := sha256.Sum256(content)
	return &tcplabv1.Artifact{Name: name, Size: uint64(len(content)), Sha256: sum[:]}
}

func wantError(t *testing.T, err error, code codes.Code, reason rpcerr.Reason, words string) {
	t.Helper()
	e := rpcerr.From(err)
	if e == nil || e.Code != code || e.Reason != reason || !strings.Contains(e.Message+" / "+e.Remedy, words) {
		t.Errorf("error %v (%+v), want code %v, reason %q and %q", err, e, code, reason, words)
	}
}

func TestRunSurvivesReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "state")
	s := open(t, dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v, %v; want mode 0700", info.Mode(), err)
	}
	run := setState(t, s, create(t, s, "nagle", map[string]string{"who": "me"}), running)

	content := []byte("what was sampled")
	in, artifact := receive(t, s, run.GetId(), 1, "samples.parquet", content)
	want := trial(run, 1, succeeded)
	want.Result = &tcplabv1.TrialResult{Artifacts: []*tcplabv1.Artifact{artifact}}
	if err := s.Commit(t.Context(), run.GetId(), store.Change{Trial: want, Files: in}); err != nil {
		t.Fatal(err)
	}
	run = setState(t, s, run, succeeded)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir)
	got, err := s.Run(t.Context(), run.GetId())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run, got, protocmp.Transform()); diff != "" {
		t.Errorf("run (-stored +read):\n%s", diff)
	}
	gotTrial, err := s.Trial(t.Context(), run.GetId(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, gotTrial, protocmp.Transform()); diff != "" {
		t.Errorf("trial (-stored +read):\n%s", diff)
	}
	r, err := s.OpenArtifact(t.Context(), run.GetId(), 1, "samples.parquet")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if read, err := io.ReadAll(r); err != nil || !bytes.Equal(read, content) {
		t.Errorf("artifact: %q, %v", read, err)
	}
	err = s.Commit(t.Context(), run.GetId(), store.Change{Trial: trial(run, 2, running)})
	wantError(t, err, codes.FailedPrecondition, rpcerr.Conflict, "has ended")
}

func TestIDsAreSayable(t *testing.T) {
	s := open(t, t.TempDir())
	shape := regexp.MustCompile(`^slow-start-([2-9][bcdfghjkmnpqrstvwxz]){2}$`)
	seen := map[string]bool{}
	for range 50 {
		id := create(t, s, "slow-start", nil).GetId()
		if !shape.MatchString(id) || seen[id] {
			t.Fatalf("ID %q (seen before: %v)", id, seen[id])
		}
		seen[id] = true
	}
}

func TestRunByReference(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := s.Run(t.Context(), "last")
	wantError(t, err, codes.NotFound, rpcerr.NotFound, "no run yet")

	nagle := create(t, s, "nagle", nil).GetId()
	create(t, s, "slow-start", nil)
	newest := create(t, s, "slow-start", nil).GetId()

	for ref, want := range map[string]string{nagle: nagle, "n": nagle, "nagle-": nagle, nagle[:len(nagle)-1]: nagle, "last": newest} {
		run, err := s.Run(t.Context(), ref)
		if err != nil || run.GetId() != want {
			t.Errorf("%q: run %q, error %v; want %q", ref, run.GetId(), err, want)
		}
	}
	_, err = s.Run(t.Context(), "slow")
	wantError(t, err, codes.NotFound, rpcerr.Ambiguous, newest)
	_, err = s.Run(t.Context(), "neagle"+nagle[len("nagle"):])
	wantError(t, err, codes.NotFound, rpcerr.NotFound, fmt.Sprintf("did you mean %q?", nagle))
	for _, ref := range []string{"handshake-2b2b", "%", "_agle", "nagle'", ""} {
		_, err = s.Run(t.Context(), ref)
		if ref == "" {
			wantError(t, err, codes.NotFound, rpcerr.Ambiguous, nagle)
			continue
		}
		wantError(t, err, codes.NotFound, rpcerr.NotFound, "runs list")
	}
}

func TestRequestMakesOneRun(t *testing.T) {
	s := open(t, t.TempDir())
	req := store.Request{ID: "abc", Digest: []byte("one")}
	first, created, err := s.CreateRun(t.Context(), &tcplabv1.Run{Lab: "nagle"}, nil, req)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	first = setState(t, s, first, running)
	again, created, err := s.CreateRun(t.Context(), &tcplabv1.Run{Lab: "nagle"}, nil, req)
	if err != nil || created {
		t.Fatal(created, err)
	}
	if diff := cmp.Diff(first, again, protocmp.Transform()); diff != "" {
		t.Errorf("the same request (-first +again):\n%s", diff)
	}
	_, _, err = s.CreateRun(t.Context(), &tcplabv1.Run{Lab: "nagle"}, nil, store.Request{ID: "abc", Digest: []byte("two")})
	wantError(t, err, codes.AlreadyExists, rpcerr.Conflict, first.GetId())
}

func TestRunsInPages(t *testing.T) {
	s := open(t, t.TempDir())
	var want []string // newest first
	for i := range 7 {
		lab, labels := "nagle", map[string]string{"odd": fmt.Sprint(i%2 == 1), "by": "test"}
		if i == 3 {
			lab = "handshake"
		}
		id := create(t, s, lab, labels).GetId()
		if i != 3 {
			want = append([]string{id}, want...)
		}
	}
	q := store.Query{Lab: "nagle", PageSize: 4}
	var got []string
	for page := 0; ; page++ {
		runs, next, err := s.Runs(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, run := range runs {
			got = append(got, run.GetId())
		}
		if q.PageToken = next; next == "" {
			break
		}
		// A run that comes between two pages moves nothing.
		create(t, s, "nagle", nil)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}

	runs, next, err := s.Runs(t.Context(), store.Query{Labels: map[string]string{"odd": "true", "by": "test"}, PageSize: 3})
	if err != nil || len(runs) != 3 || next != "" {
		t.Errorf("by labels: %d runs, next %q, error %v; want 3 on a last page", len(runs), next, err)
	}
	_, next, err = s.Runs(t.Context(), store.Query{PageSize: 1})
	if err != nil || next == "" {
		t.Fatal(next, err)
	}
	for _, token := range []string{"?", "AAAA", next} {
		_, _, err = s.Runs(t.Context(), store.Query{PageSize: 1, Lab: "nagle", PageToken: token})
		wantError(t, err, codes.InvalidArgument, rpcerr.RequestInvalid, "page token")
	}
}

func TestWatchMissesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	run := create(t, s, "nagle", nil)
	const commits = 300
	written := make(chan error, 1)
	go func() {
		for i := range commits {
			events := []*tcplabv1.RunEvent{
				{Event: &tcplabv1.RunEvent_Trial{Trial: &tcplabv1.TrialProgress{Number: uint32(i)}}},
				{Event: &tcplabv1.RunEvent_Expectation{Expectation: &tcplabv1.ExpectationResult{Name: fmt.Sprint(i)}}},
			}
			if err := s.Commit(context.Background(), run.GetId(), store.Change{Events: events}); err != nil {
				written <- err
				return
			}
		}
		end := proto.CloneOf(run)
		end.State = succeeded
		written <- s.Commit(context.Background(), run.GetId(), store.Change{Run: end, Events: []*tcplabv1.RunEvent{store.RunEvent(end)}})
	}()

	// The stream breaks after every 50th event and is resumed.
	broken := errors.New("broken")
	var cursors []uint64
	var last *tcplabv1.RunEvent
	var after uint64
	for {
		taken := 0
		err := s.Watch(t.Context(), run.GetId(), after, func(e *tcplabv1.RunEvent) error {
			if taken == 50 {
				return broken
			}
			taken++
			cursors, last, after = append(cursors, e.GetCursor()), e, e.GetCursor()
			return nil
		}, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	for i, cursor := range cursors {
		if cursor != uint64(i+1) {
			t.Fatalf("event %d has cursor %d", i+1, cursor)
		}
	}
	if len(cursors) != 1+2*commits+1 || last.GetRun().GetState() != succeeded {
		t.Errorf("%d events, the last %v; want %d and the run's end", len(cursors), last, 1+2*commits+1)
	}
	results, err := s.Expectations(t.Context(), run.GetId())
	if err != nil || len(results) != commits || results[7].GetName() != "7" {
		t.Errorf("%d expectations, error %v; want %d", len(results), err, commits)
	}
}

func TestWatchEnds(t *testing.T) {
	dead := errors.New("nothing can be stored")
	for _, tt := range []struct {
		name  string
		alive func() error
		end   func(*store.Store, context.CancelCauseFunc)
		want  func(error) bool
	}{
		{
			"with its context", nil, func(_ *store.Store, cancel context.CancelCauseFunc) { cancel(dead) },
			func(err error) bool { return errors.Is(err, dead) },
		},
		{
			"with the store", nil, func(s *store.Store, _ context.CancelCauseFunc) { _ = s.Close() },
			func(err error) bool { return err != nil },
		},
		{
			"with the driver", func() error { return dead }, func(s *store.Store, _ context.CancelCauseFunc) { s.Wake() },
			func(err error) bool { return errors.Is(err, dead) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			run := create(t, s, "nagle", nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			seen, ended := make(chan struct{}), make(chan error)
			go func() {
				ended <- s.Watch(ctx, run.GetId(), 0, func(*tcplabv1.RunEvent) error { close(seen); return nil }, tt.alive)
			}()
			<-seen
			tt.end(s, cancel)
			if err := <-ended; !tt.want(err) {
				t.Errorf("watch ended with %v", err)
			}
		})
	}
}

func TestReaderBesideDriver(t *testing.T) {
	dir := t.TempDir()
	empty, err := store.OpenReader(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if runs, _, err := empty.Runs(t.Context(), store.Query{PageSize: 5}); err != nil || len(runs) != 0 {
		t.Errorf("a new directory has runs %v, error %v", runs, err)
	}

	s := open(t, dir)
	run := create(t, s, "nagle", nil)
	reader, err := store.OpenReader(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	setState(t, s, run, running) // after the reader opened
	got, err := reader.Run(t.Context(), "last")
	if err != nil || got.GetState() != running {
		t.Errorf("the reader sees %v, error %v", got, err)
	}
	events := 0
	err = reader.Watch(t.Context(), run.GetId(), 0, func(*tcplabv1.RunEvent) error { events++; return nil }, nil)
	wantError(t, err, codes.Unavailable, rpcerr.Busy, "another process")
	if events != 2 {
		t.Errorf("the reader delivered %d events, want 2", events)
	}
	_, _, err = reader.CreateRun(t.Context(), &tcplabv1.Run{Lab: "nagle"}, nil, store.Request{})
	wantError(t, err, codes.FailedPrecondition, rpcerr.Busy, "another process")
}

func TestFileMustBeWhatWasAnnounced(t *testing.T) {
	s := open(t, t.TempDir())
	run := create(t, s, "nagle", nil)
	content := []byte("0123456789")
	other := announce("f", []byte("012345678x"))
	broken := errors.New("stream broke")
	for _, tt := range []struct {
		name     string
		artifact *tcplabv1.Artifact
		reader   io.Reader
		want     error
	}{
		{"whole", announce("f", content), bytes.NewReader(content), nil},
		{"empty", announce("f", nil), bytes.NewReader(nil), nil},
		{"short", announce("f", content), bytes.NewReader(content[:9]), store.ErrContent},
		{"long", announce("f", content), bytes.NewReader(append(content, 'x')), store.ErrContent},
		{"changed", other, bytes.NewReader(content), store.ErrContent},
		{"broken", announce("f", content), io.MultiReader(bytes.NewReader(content[:5]), brokenReader{broken}), broken},
		{"climbing", announce("../f", content), bytes.NewReader(content), store.ErrContent},
		{"parent", announce("..", content), bytes.NewReader(content), store.ErrContent},
		{"nameless", announce("", content), bytes.NewReader(content), store.ErrContent},
		{"overlong", announce(strings.Repeat("f", 256), content), bytes.NewReader(content), store.ErrContent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in, err := s.Receive(run.GetId(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Put(tt.artifact, tt.reader); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if tt.want == nil {
				if err := in.Put(tt.artifact, bytes.NewReader(content)); !errors.Is(err, store.ErrContent) {
					t.Errorf("the same name again: error %v", err)
				}
			}
			if err := in.Discard(); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := s.OpenArtifact(t.Context(), run.GetId(), 1, "f"); rpcerr.From(err).Code != codes.NotFound {
		t.Errorf("a file that nobody committed: error %v", err)
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }
