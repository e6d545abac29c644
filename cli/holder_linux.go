package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/rpcerr"
)

// What the folder of a standing lab holds, beside the socket.
const (
	holderLock = "lock"  // locked as long as its holder lives
	holderLog  = "log"   // what its holder wrote
	holderWork = "spool" // of its agent
)

// directoryLock is the file in the runtime directory that is locked over each look at
// its folders. No lab has such a name.
const directoryLock = ".lock"

// holders are the standing labs of this user: a folder for each, in a directory that
// nobody else can enter. A folder whose lock is free is of a holder that died, and goes
// as soon as it is seen.
type holders struct{ dir string }

// openHolders makes the runtime directory where it is missing, and refuses one that is not private.
func (a *app) openHolders() (*holders, error) {
	dir, err := a.runtimeDirectory()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &rpcerr.Error{
			Reason: rpcerr.Storage, Cause: err, Message: fmt.Sprintf("make the runtime directory: %v", err),
			Remedy: "set " + runtimeDirVar + " to a folder that is yours",
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, fmt.Errorf("look at the runtime directory %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return nil, &rpcerr.Error{
			Reason: rpcerr.Storage, Message: fmt.Sprintf("the runtime directory %s is not this user's alone", dir),
			Remedy: fmt.Sprintf("make it so (chmod 700 %s), or set %s to another one", dir, runtimeDirVar),
		}
	}
	return &holders{dir: dir}, nil
}

func (h *holders) path(name string) string { return filepath.Join(h.dir, name) }

// exclusively does something that no other process does in the directory meanwhile; it must be short.
func (h *holders) exclusively(do func() error) error {
	lock, err := os.OpenFile(h.path(directoryLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the runtime directory's lock: %w", err)
	}
	defer lock.Close()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("lock the runtime directory: %w", err)
		}
		return do()
	}
}

// claim makes the folder of a lab that shall stand, and returns its lock, which a holder inherits.
func (h *holders) claim(name string) (lock *os.File, err error) {
	err = h.exclusively(func() error {
		if h.alive(name) {
			return &statusError{
				status: exitUsage, message: fmt.Sprintf("a lab %s stands already", name),
				remedy: fmt.Sprintf("take it down (tcplab down %s), or give this one another name (--name)", name),
			}
		}
		if err := os.RemoveAll(h.path(name)); err != nil {
			return fmt.Errorf("sweep what a lab %s left: %w", name, err)
		}
		if err := os.Mkdir(h.path(name), 0o700); err != nil {
			return fmt.Errorf("make a folder for lab %s: %w", name, err)
		}
		lock, err = os.OpenFile(filepath.Join(h.path(name), holderLock), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("lock the folder of lab %s: %w", name, err), os.RemoveAll(h.path(name)))
		}
		return nil
	})
	return lock, err
}

// claimed reports whether a file is the lock of the lab's folder.
func (h *holders) claimed(name string, lock *os.File) bool {
	mine, err := lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(filepath.Join(h.path(name), holderLock))
	return err == nil && os.SameFile(mine, there)
}

// alive reports whether the folder has a holder, or is just about to.
func (h *holders) alive(name string) bool {
	lock, err := os.OpenFile(filepath.Join(h.path(name), holderLock), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer lock.Close()
	return errors.Is(unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// sweep removes a folder, unless it has a holder that is not the caller's own.
func (h *holders) sweep(name string, own bool) error {
	return h.exclusively(func() error {
		if !own && h.alive(name) {
			return nil
		}
		return os.RemoveAll(h.path(name))
	})
}

// list names the labs that have a holder, and sweeps what others left.
func (h *holders) list() ([]string, error) {
	var names []string
	err := h.exclusively(func() error {
		entries, err := os.ReadDir(h.dir)
		if err != nil {
			return fmt.Errorf("list the standing labs: %w", err)
		}
		for _, entry := range entries {
			switch {
			case !entry.IsDir():
			case h.alive(entry.Name()):
				names = append(names, entry.Name())
			default:
				if err := os.RemoveAll(h.path(entry.Name())); err != nil {
					return fmt.Errorf("sweep what a lab %s left: %w", entry.Name(), err)
				}
			}
		}
		return nil
	})
	return names, err
}

// found says whether a lab has a holder, or what to do where it has none.
func (h *holders) found(name string) error {
	names, err := h.list()
	if err != nil {
		return err
	}
	if slices.Contains(names, name) {
		return nil
	}
	remedy := "`tcplab up` makes one stand"
	if len(names) > 0 {
		remedy = "`tcplab ps` lists what stands"
	}
	return &statusError{status: exitUsage, message: fmt.Sprintf("no lab %q stands", name), remedy: remedy}
}

// awaitEnd waits until a lab has no holder any more, and sweeps its folder. It reports
// whether that was so in time.
func (h *holders) awaitEnd(ctx context.Context, name string) (bool, error) {
	tick := time.NewTicker(redialEvery / 4)
	defer tick.Stop()
	for h.alive(name) {
		select {
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
	}
	return true, h.sweep(name, false)
}

// kill ends a holder that does not end by itself: the process at the other end of its socket.
func (h *holders) kill(ctx context.Context, name string) error {
	conn, err := dialOnce(ctx, h.path(name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil // it is gone, or has just come and sees that it is not wanted
	}
	if err != nil {
		return fmt.Errorf("find the holder of lab %s: %w", name, err)
	}
	defer conn.Close()
	cred, err := peer(conn.(*net.UnixConn))
	if err != nil {
		return fmt.Errorf("find the holder of lab %s: %w", name, err)
	}
	if err := unix.Kill(int(cred.Pid), unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill the holder of lab %s: %w", name, err)
	}
	return nil
}
