//go:build unix

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
)

// ErrLocked is what Open's error Is where another process has the directory.
var ErrLocked = errors.New("another tcplab has the state directory")

// Holder is the process that has the directory, as far as it has said so.
type Holder struct {
	PID   int    // 0: not known
	RunID string // the run that it drives; empty: none yet
}

// String names the holder for people.
func (h Holder) String() string {
	switch {
	case h.PID == 0:
		return "another process"
	case h.RunID == "":
		return fmt.Sprintf("process %d", h.PID)
	default:
		return fmt.Sprintf("process %d, which drives run %s", h.PID, h.RunID)
	}
}

// holderFormat has one length for all holders, so that whoever reads while it
// is overwritten sees one holder or the other.
const holderFormat = "%-10d %-64s\n"

// lock is the directory's lock: flock(2), which the kernel gives back when the
// process ends, in whatever way.
type lock struct {
	file *os.File
}

// acquire takes the lock, waiting as opts say.
func acquire(ctx context.Context, path string, opts Options) (*lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, storageError(path, "open the lock", err)
	}
	err = flock(file, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		if opts.Wait == 0 {
			return nil, errors.Join(locked(file), file.Close())
		}
		if opts.Waiting != nil {
			opts.Waiting(holder(file))
		}
		return wait(ctx, file, opts.Wait)
	}
	if err != nil {
		return nil, errors.Join(storageError(path, "take the lock", err), file.Close())
	}
	return hold(file), nil
}

// wait blocks in flock(2), which no signal of Go's runtime interrupts. The
// goroutine that does so ends when it has the lock: where nobody wants it any
// more it gives it back at once.
func wait(ctx context.Context, file *os.File, limit time.Duration) (*lock, error) {
	if limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, ErrLocked)
		defer stop()
	}
	taken := make(chan error) // without a buffer: received, or given up
	go func() {
		err := flock(file, unix.LOCK_EX)
		select {
		case taken <- err:
		case <-ctx.Done():
			_ = file.Close() // gives the lock back; there is nobody to tell
		}
	}()
	select {
	case err := <-taken:
		if err != nil {
			return nil, errors.Join(storageError(file.Name(), "take the lock", err), file.Close())
		}
		return hold(file), nil
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), ErrLocked) {
			return nil, locked(file)
		}
		return nil, fmt.Errorf("wait for %v: %w", holder(file), context.Cause(ctx))
	}
}

func hold(file *os.File) *lock {
	l := &lock{file: file}
	l.announce("")
	return l
}

// announce says which run is driven. It is for people who wait, so that a
// failure to write it (a full disk) is none of the lock's.
func (l *lock) announce(runID string) {
	_, _ = l.file.WriteAt(fmt.Appendf(nil, holderFormat, os.Getpid(), runID), 0)
}

func (l *lock) release() error { return l.file.Close() }

// holder reads who has the lock.
func holder(file *os.File) Holder {
	var h Holder
	buf := make([]byte, 128)
	n, _ := file.ReadAt(buf, 0)
	fields := strings.Fields(string(buf[:n]))
	if len(fields) > 0 {
		if _, err := fmt.Sscan(fields[0], &h.PID); err != nil {
			return Holder{}
		}
	}
	if len(fields) > 1 {
		h.RunID = fields[1]
	}
	return h
}

// locked is the error for a directory that another process has.
func locked(file *os.File) error {
	h := holder(file)
	remedy := "wait for it (--wait), or stop that process"
	if h.RunID != "" {
		remedy = fmt.Sprintf("wait for it (--wait), or stop it: tcplab runs cancel %s", h.RunID)
	}
	return rpcerr.New(codes.Unavailable, rpcerr.Busy, remedy, "%w: %v", ErrLocked, h)
}

func flock(file *os.File, how int) error {
	for {
		err := unix.Flock(int(file.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
