package spool

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// smallDisk is a file system of that size which is mounted nowhere, and goes
// with the test.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	need.Root(t)
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatalf("open tmpfs: %v", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "size", size); err != nil {
		t.Fatalf("give tmpfs its size: %v", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatalf("make a tmpfs: %v", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("mount the tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Close(root) })
	return fmt.Sprintf("/proc/self/fd/%d", root)
}

// On a disk that is full the trial does not begin, and a result that no longer
// fits is no result.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "1m")
	s := open(t, dir)
	defer s.Close()
	trial, err := s.Begin("a")
	if err != nil {
		t.Fatal(err)
	}
	file, err := trial.Create("samples.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(make([]byte, 2<<20)); err == nil || rpcerr.From(err).Reason != rpcerr.Storage || code(err) != codes.ResourceExhausted {
		t.Errorf("2 MiB fit on a disk of 1 MiB: %v", err)
	}
	if err := trial.Seal(&tcplabv1.TrialEnded{Failure: string(make([]byte, 1<<20))}); code(err) != codes.ResourceExhausted {
		t.Errorf("Seal on a full disk: %v", err)
	}
	if _, err := s.Result("a"); code(err) != codes.NotFound {
		t.Errorf("half a result is read: %v", err)
	}
	if _, err := s.Begin("b"); err == nil || rpcerr.From(err).Reason != rpcerr.Storage {
		t.Errorf("a trial begins on a full disk: %v", err)
	}
	if _, err := file.Commit(); err == nil {
		t.Error("a file that was cut short is an artifact")
	}
	if _, err := s.Begin("b"); err != nil {
		t.Errorf("a trial begins with room again: %v", err)
	}
}
