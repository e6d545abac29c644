package spool

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func open(t *testing.T, dir string) *Spool {
	t.Helper()
	s, err := Open(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// seal stores a whole trial with one artifact.
func seal(t *testing.T, s *Spool, id, content string) *tcplabv1.TrialEnded {
	t.Helper()
	trial, err := s.Begin(id)
	if err != nil {
		t.Fatal(err)
	}
	file, err := trial.Create("samples.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(file, content); err != nil {
		t.Fatal(err)
	}
	artifact, err := file.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256([]byte(content)); artifact.GetSize() != uint64(len(content)) || !slices.Equal(artifact.GetSha256(), want[:]) {
		t.Errorf("the artifact is described as %v", artifact)
	}
	ended := &tcplabv1.TrialEnded{Failure: "none", Result: &tcplabv1.TrialResult{Artifacts: []*tcplabv1.Artifact{artifact}}}
	if err := trial.Seal(ended); err != nil {
		t.Fatal(err)
	}
	return ended
}

func code(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	return rpcerr.From(err).Code
}

func TestSealedTrialSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "spool")
	s := open(t, dir)
	want := seal(t, s, "run-1.1", "some samples")
	if _, err := s.Begin("run-1.1"); code(err) != codes.AlreadyExists {
		t.Errorf("the same trial begins again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	got, err := s.Result("run-1.1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("the result (-want +got):\n%s", diff)
	}
	file, err := s.Artifact("run-1.1", "samples.parquet")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if content, err := io.ReadAll(file); err != nil || string(content) != "some samples" {
		t.Errorf("the artifact is %q, %v", content, err)
	}
	for range 2 { // to delete what is not there is no error
		if err := s.Delete("run-1.1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Result("run-1.1"); code(err) != codes.NotFound {
		t.Errorf("a deleted trial is read: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left := names(t, dir); !slices.Equal(left, []string{lockName}) {
		t.Errorf("in the spool are %q", left)
	}
}

// What a killed agent leaves is a folder without its seal, whatever else is in it.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	trial, err := s.Begin("killed")
	if err != nil {
		t.Fatal(err)
	}
	file, err := trial.Create("samples.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := trial.Create("half.pcap"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Result("killed"); code(err) != codes.NotFound {
		t.Errorf("a trial is read before its seal: %v", err)
	}
	if _, err := s.Artifact("killed", "samples.parquet"); code(err) != codes.NotFound {
		t.Errorf("an artifact is read before its seal: %v", err)
	}
	seal(t, s, "whole", "x")
	// As after kill -9: nothing was closed in order, the lock went with the process.
	s.lock.Close()
	s = open(t, dir)
	if left := names(t, dir); !slices.Equal(left, []string{lockName, "whole"}) {
		t.Errorf("in the spool are %q", left)
	}
	s.Close()
	discarding, err := Open(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer discarding.Close()
	if left := names(t, dir); !slices.Equal(left, []string{lockName}) {
		t.Errorf("after discarding all, in the spool are %q", left)
	}
}

func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	seal(t, s, "a", "x")
	path := filepath.Join(dir, "a", sealName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)-1], "flipped": append(slices.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Result("a"); code(err) != codes.DataLoss {
			t.Errorf("%s: Result: %v", name, err)
		}
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	if _, err := Open(dir, false); err == nil || rpcerr.From(err).Reason != rpcerr.Busy {
		t.Errorf("a spool in use is opened: %v", err)
	}
}

func TestNamesStayInside(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	seal(t, s, "a", "x")
	for _, name := range []string{"", ".", "..", "../a", "a/b", ".result", ".partial-x"} {
		if _, err := s.Begin(name); code(err) != codes.InvalidArgument {
			t.Errorf("Begin(%q): %v", name, err)
		}
		if _, err := s.Artifact("a", name); code(err) != codes.NotFound {
			t.Errorf("Artifact(%q): %v", name, err)
		}
		if _, err := s.Result(name); code(err) != codes.NotFound {
			t.Errorf("Result(%q): %v", name, err)
		}
		if err := s.Delete(name); err != nil {
			t.Errorf("Delete(%q): %v", name, err)
		}
	}
	if _, err := s.Result("a"); err != nil {
		t.Errorf("the trial is gone: %v", err)
	}
}

func TestUnusableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(filepath.Join(file, "spool"), false)
	if err == nil || rpcerr.From(err).Reason != rpcerr.Storage || rpcerr.From(err).Remedy == "" {
		t.Errorf("Open: %v", err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
