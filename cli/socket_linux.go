package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// socketWithin bounds how long a process that holds the state directory may
// take until it listens, and redialEvery is how often that is tried.
const (
	socketWithin = 2 * time.Second
	redialEvery  = 20 * time.Millisecond
)

// listenSocket listens in the directory, for this user alone. A socket
// that a killed process left is replaced: the caller holds the directory's
// lock. Closing the listener removes the socket.
func listenSocket(ctx context.Context, dir string) (net.Listener, error) {
	path, done, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace the controller's socket: %w", err)
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen in %s: %w", dir, err)
	}
	// The short path goes with its descriptor, so Close must not use it.
	lis.(*net.UnixListener).SetUnlinkOnClose(false)
	owned := &ownListener{Listener: lis, path: filepath.Join(dir, socketName)}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the controller's socket private: %w", err), owned.Close())
	}
	return owned, nil
}

// socketPath is a path to the socket that fits into a socket address (108
// bytes, unix(7)) however long the directory's own is. It holds until done.
func socketPath(dir string) (path string, done func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, fmt.Errorf("open the socket's directory: %w", err)
	}
	return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) + "/" + socketName, func() { _ = f.Close() }, nil
}

// ownListener accepts connections of this process's own user and of root, and
// closes all others.
type ownListener struct {
	net.Listener
	path string
}

// Accept is net.Listener's.
func (l *ownListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		cred, err := peer(conn.(*net.UnixConn))
		if err == nil && (cred.Uid == 0 || cred.Uid == uint32(os.Geteuid())) {
			return conn, nil
		}
		_ = conn.Close()
	}
}

// Close stops listening and removes the socket.
func (l *ownListener) Close() error {
	err := l.Listener.Close()
	if removeErr := os.Remove(l.path); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return err
}

// peer is the process and user at the other end, as the kernel knows them.
func peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, credErr
}

// dialSocket connects to the process that drives runs in the state directory.
func dialSocket(ctx context.Context, dir string) (*embedded, error) {
	ctx, cancel := context.WithTimeout(ctx, socketWithin)
	defer cancel()
	ticker := time.NewTicker(redialEvery)
	defer ticker.Stop()
	for {
		probe, err := dialOnce(ctx, dir)
		if err == nil {
			_ = probe.Close()
			break
		}
		select {
		case <-ctx.Done():
			return nil, &rpcerr.Error{
				Reason: rpcerr.Busy, Cause: err,
				Message: fmt.Sprintf("another process holds the state directory %s and does not answer: %v", dir, err),
				Remedy:  "wait for it to end, or end it; its process ID stands in the directory's lock file",
			}
		case <-ticker.C:
		}
	}
	conn, err := connect(func(ctx context.Context) (net.Conn, error) { return dialOnce(ctx, dir) })
	if err != nil {
		return nil, err
	}
	return &embedded{runs: tcplabv1.NewRunServiceClient(conn), close: conn.Close}, nil
}

func dialOnce(ctx context.Context, dir string) (net.Conn, error) {
	path, done, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}
