package store_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// inMountNamespace runs the calling test once more, in a process with a mount
// namespace of its own, and says whether this is that process. What it mounts
// goes with it.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "TCPLAB_STORE_MOUNT_NS"
	if os.Getenv(inside) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatalf("keep mounts to this namespace: %v", err)
		}
		return true
	}
	need.Root(t)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), inside+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := child.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		need.Missing(t, "mountns", err.Error())
	}
	if err != nil {
		t.Errorf("in the mount namespace: %v\n%s", err, out)
	}
	return false
}

func mountTmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

func TestFullDisk(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	dir := t.TempDir()
	mountTmpfs(t, dir, "2m")
	s := open(t, dir)
	run := setState(t, s, create(t, s, "nagle", nil), running)

	t.Run("a file that does not fit", func(t *testing.T) {
		in, err := s.Receive(run.GetId(), 1)
		if err != nil {
			t.Fatal(err)
		}
		content := bytes.Repeat([]byte("x"), 3<<20)
		err = in.Put(announce("big", content), bytes.NewReader(content))
		wantError(t, err, codes.ResourceExhausted, rpcerr.Storage, "free space")
		if err := in.Discard(); err != nil {
			t.Error(err)
		}
	})

	t.Run("a row that does not fit", func(t *testing.T) {
		in, _ := receive(t, s, run.GetId(), 1, "small", []byte("x"))
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		one := trial(run, 1, succeeded)
		one.Failure = string(bytes.Repeat([]byte("x"), 1<<20))
		err := s.Commit(t.Context(), run.GetId(), store.Change{Trial: one, Files: in, Events: []*tcplabv1.RunEvent{{}}})
		wantError(t, err, codes.ResourceExhausted, rpcerr.Storage, "free space")

		_, err = s.Trial(t.Context(), run.GetId(), 1)
		wantError(t, err, codes.NotFound, rpcerr.NotFound, "no trial 1")
		if _, err := os.Stat(filepath.Join(dir, "artifacts", run.GetId(), "1")); !os.IsNotExist(err) {
			t.Errorf("its files are left (%v)", err)
		}
		if events, err := s.Events(t.Context(), run.GetId(), 0, 10); err != nil || len(events) != 2 {
			t.Errorf("%d events, error %v; want the 2 from before", len(events), err)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		setState(t, s, run, succeeded) // with room again it goes on
	})

	t.Run("no room to begin", func(t *testing.T) {
		full := t.TempDir()
		mountTmpfs(t, full, "64k")
		fill(t, filepath.Join(full, "ballast"))
		_, err := store.Open(t.Context(), filepath.Join(full), store.Options{})
		wantError(t, err, codes.ResourceExhausted, rpcerr.Storage, "free space")
	})
}

// fill writes a file until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for size := 1 << 16; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill the disk: %v", err)
		}
	}
}

func TestUnwritableDirectory(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	dir := t.TempDir()
	mountTmpfs(t, dir, "2m")
	state := filepath.Join(dir, "state")
	s := open(t, state)
	run := setState(t, s, create(t, s, "nagle", nil), running)
	setState(t, s, run, succeeded)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatalf("make the file system read-only: %v", err)
	}
	for _, path := range []string{state, filepath.Join(dir, "new")} {
		_, err := store.Open(t.Context(), path, store.Options{})
		wantError(t, err, codes.FailedPrecondition, rpcerr.Storage, "writable")
	}
}

func TestFileInPlaceOfDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), path, store.Options{})
	wantError(t, err, codes.FailedPrecondition, rpcerr.Storage, "another state directory")
	_, err = store.Open(t.Context(), filepath.Join(path, "below"), store.Options{})
	wantError(t, err, codes.FailedPrecondition, rpcerr.Storage, "another state directory")
}

func TestForeignDatabase(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tcplab.db"), bytes.Repeat([]byte("not SQLite. "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), dir, store.Options{})
	wantError(t, err, codes.Internal, rpcerr.Storage, "another state directory")
}
