package store_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/controller/store"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// childDir tells a test binary that it is the process to be killed, and where
// it works.
const childDir = "TCPLAB_STORE_CHILD_DIR"

// TestKilledWhileWriting kills a process that stores trials, at another moment
// each time, and looks at what the next one finds: every trial that was
// reported is whole, no other is there in part.
func TestKilledWhileWriting(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		writeUntilKilled(dir)
	}
	dir := t.TempDir()
	for round := range 6 {
		child := exec.Command(os.Args[0], "-test.run=^TestKilledWhileWriting$")
		child.Env = append(os.Environ(), childDir+"="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// The child is somewhere in its next writes when the line arrives.
		lines := bufio.NewScanner(out)
		var runID string
		var reported uint32
		for int(reported) < 1+3*round && lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &runID, &reported); err != nil {
				t.Fatalf("the child says %q: %v", lines.Text(), err)
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // killed, as it should be
		if reported == 0 {
			t.Fatal("the child stored nothing")
		}
		checkAfterKill(t, dir, runID, reported)
	}
}

// writeUntilKilled drives a run of endless trials, and says of each that it is
// stored.
func writeUntilKilled(dir string) {
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	s, err := store.Open(ctx, dir, store.Options{})
	fail(err)
	run, _, err := s.CreateRun(ctx, &tcplabv1.Run{Lab: "nagle"}, nil, store.Request{})
	fail(err)
	_, _, err = s.CreateRun(ctx, &tcplabv1.Run{Lab: "waits"}, nil, store.Request{})
	fail(err)
	run.State = running
	fail(s.Commit(ctx, run.GetId(), store.Change{Run: run, Events: []*tcplabv1.RunEvent{store.RunEvent(run)}}))
	for number := uint32(1); ; number++ {
		one := trial(run, number, running)
		fail(s.Commit(ctx, run.GetId(), store.Change{Trial: one, Events: []*tcplabv1.RunEvent{{}}}))
		in, err := s.Receive(run.GetId(), number)
		fail(err)
		one.Result = &tcplabv1.TrialResult{}
		for f := range 3 {
			content := strings.Repeat(fmt.Sprintf("%d of trial %d\n", f, number), 1000)
			artifact := announce(fmt.Sprintf("f%d", f), []byte(content))
			fail(in.Put(artifact, strings.NewReader(content)))
			one.Result.Artifacts = append(one.Result.Artifacts, artifact)
		}
		one.State = succeeded
		run.TrialsDone = number
		fail(s.Commit(ctx, run.GetId(), store.Change{Run: run, Trial: one, Files: in, Events: []*tcplabv1.RunEvent{{}, {}}}))
		fmt.Println(run.GetId(), number)
	}
}

func checkAfterKill(t *testing.T, dir, runID string, reported uint32) {
	t.Helper()
	s := open(t, dir)
	defer s.Close()
	for _, ref := range []string{runID, "last"} {
		run, err := s.Run(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if run.GetState() != failed || run.GetFailureReason() != tcplabv1.FailureReason_FAILURE_REASON_INTERRUPTED ||
			run.GetFailure() == "" || run.GetEndTime() == nil {
			t.Errorf("after the kill: %v", run)
		}
	}
	run, err := s.Run(t.Context(), runID)
	if err != nil {
		t.Fatal(err)
	}
	if run.GetTrialsDone() < reported {
		t.Errorf("%d trials were reported, %d are stored", reported, run.GetTrialsDone())
	}

	listed := map[string]bool{}
	whole := uint32(0)
	err = s.Trials(t.Context(), runID, 0, func(one *tcplabv1.Trial) (bool, error) {
		if one.GetState() != succeeded {
			if one.GetState() != failed || one.GetResult() != nil {
				t.Errorf("trial %d: state %v, result %v", one.GetNumber(), one.GetState(), one.GetResult())
			}
			return true, nil
		}
		whole++
		listed[fmt.Sprint(one.GetNumber())] = true
		for _, artifact := range one.GetResult().GetArtifacts() {
			r, err := s.OpenArtifact(t.Context(), runID, one.GetNumber(), artifact.GetName())
			if err != nil {
				return false, err
			}
			content, err := io.ReadAll(r)
			if err != nil {
				return false, err
			}
			if err := r.Close(); err != nil {
				return false, err
			}
			if sum := sha256.Sum256(content); string(sum[:]) != string(artifact.GetSha256()) {
				t.Errorf("trial %d: %s is damaged", one.GetNumber(), artifact.GetName())
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if whole != run.GetTrialsDone() {
		t.Errorf("%d whole trials, the run counts %d", whole, run.GetTrialsDone())
	}

	events, err := s.Events(t.Context(), runID, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i, event := range events {
		if event.GetCursor() != uint64(i+1) {
			t.Fatalf("event %d has cursor %d", i+1, event.GetCursor())
		}
	}
	if last := events[len(events)-1]; last.GetRun().GetState() != failed {
		t.Errorf("the last event is %v", last)
	}

	if _, err := os.Stat(filepath.Join(dir, "incoming")); !os.IsNotExist(err) {
		t.Errorf("files on their way in were kept (%v)", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "artifacts", runID))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !listed[entry.Name()] {
			t.Errorf("files of trial %s are kept, and no manifest lists them", entry.Name())
		}
	}
}

// TestUnlistedFilesAreSwept lays out what a kill between the move of the files
// and the transaction leaves.
func TestUnlistedFilesAreSwept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	run := setState(t, s, create(t, s, "nagle", nil), running)
	in, artifact := receive(t, s, run.GetId(), 1, "kept", []byte("x"))
	one := trial(run, 1, succeeded)
	one.Result = &tcplabv1.TrialResult{Artifacts: []*tcplabv1.Artifact{artifact}}
	if err := s.Commit(t.Context(), run.GetId(), store.Change{Trial: one, Files: in}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Receive(run.GetId(), 3); err != nil {
		t.Fatal(err)
	}
	unlisted := filepath.Join(dir, "artifacts", run.GetId(), "2")
	if err := os.MkdirAll(unlisted, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(unlisted, "half"), []byte("ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	open(t, dir)
	var left []string
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !strings.HasPrefix(entry.Name(), "tcplab.db") && entry.Name() != "lock" {
			left = append(left, entry.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"kept"}, left); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestFailedCommitLeavesNothing makes the transaction fail after the files
// moved.
func TestFailedCommitLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	run := setState(t, s, create(t, s, "nagle", nil), running)
	in, _ := receive(t, s, run.GetId(), 1, "f", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	end := proto.CloneOf(run)
	end.State = succeeded
	if err := s.Commit(ctx, run.GetId(), store.Change{Run: end, Trial: trial(run, 1, succeeded), Files: in}); err == nil {
		t.Fatal("committed under a context that has ended")
	}
	if _, err := os.Stat(filepath.Join(dir, "artifacts", run.GetId(), "1")); !os.IsNotExist(err) {
		t.Errorf("the files are left (%v)", err)
	}
	got, err := s.Run(t.Context(), run.GetId())
	if err != nil || got.GetState() != running {
		t.Errorf("run %v, error %v; want it as before", got, err)
	}
	setState(t, s, run, succeeded) // and the store goes on
}
