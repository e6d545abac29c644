// Package netns holds network namespaces that have no name and no process of
// their own: a [Handle] is a file descriptor, and when the last descriptor and
// the last socket in it are gone the kernel removes the namespace with every
// interface, route and qdisc in it. Nothing is ever pinned in the file system,
// so nothing is left to clean after kill -9.
//
// It refuses to leave a thread in the wrong namespace: a thread that cannot be
// brought back is given up to the Go runtime, which ends it.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// self is the namespace of the calling thread. /proc/self would be that of the
// main thread.
const self = "/proc/thread-self/ns/net"

// errNotReturned is Do's error where the function ended its goroutine.
var errNotReturned = errors.New("the function ended its goroutine instead of returning")

// Handle is an open network namespace. It is safe for concurrent use; it must
// be closed once, after all use.
type Handle struct {
	name string
	file *os.File
	own  bool
}

// New makes a namespace with its loopback interface up. The name appears in
// errors only. It needs CAP_SYS_ADMIN in the process's user namespace.
func New(name string) (*Handle, error) {
	var h *Handle
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		file, err := os.Open(self)
		if err != nil {
			return fmt.Errorf("open the new network namespace: %w", err)
		}
		h = &Handle{name: name, file: file}
		if err := loopback(); err != nil {
			file.Close()
			return fmt.Errorf("bring up the loopback interface: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", name, err)
	}
	return h, nil
}

// loopback brings up the loopback interface of this thread's namespace.
func loopback() error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK)
	return unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, request)
}

// Current opens the namespace of the calling process's main thread.
func Current() (*Handle, error) {
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open this process's network namespace: %w", err)
	}
	return &Handle{name: "host", file: file, own: true}, nil
}

// Own reports whether the handle is Current's: what is set for the namespace as a
// whole would be set for the host.
func (h *Handle) Own() bool { return h.own }

// Inode numbers the namespace among all that exist; the number may come again after its end.
func (h *Handle) Inode() (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(h.FD(), &stat); err != nil {
		return 0, fmt.Errorf("number the network namespace of %s: %w", h.name, err)
	}
	return stat.Ino, nil
}

// Name is the name given to New.
func (h *Handle) Name() string { return h.name }

// FD is the namespace's file descriptor, valid until Close.
func (h *Handle) FD() int { return int(h.file.Fd()) }

// Close lets go of the namespace.
func (h *Handle) Close() error { return h.file.Close() }

// Do runs fn on a thread that has entered the namespace and returns fn's
// error. Sockets that fn opens belong to the namespace for good; fn must not
// start goroutines that rely on it, since those run on other threads.
func (h *Handle) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(h.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace of %s: %w", h.name, err)
		}
		return fn()
	})
}

// Netlink opens a netlink handle that acts in the namespace. The caller
// closes it.
func (h *Handle) Netlink(families ...int) (*netlink.Handle, error) {
	nl, err := netlink.NewHandleAt(vnetns.NsHandle(h.FD()), families...)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", h.name, err)
	}
	return nl, nil
}

// onThread runs fn on a goroutine locked to its thread and puts the thread back
// into the namespace it was in. Where that is forbidden, as it is to root of a
// user namespace that does not own the host's network namespace, the goroutine
// ends locked, and the runtime ends the thread with it.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Sent however fn ends; runtime.Goexit is what testing.T.Fatal does.
		err := errNotReturned
		defer func() { done <- err }()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The runtime cannot end the main thread, and /proc/self is read
			// through it: keep it locked here, so that fn gets another.
			defer runtime.UnlockOSThread()
			err = onThread(fn)
			return
		}
		before, openErr := os.Open(self)
		if openErr != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("open this thread's network namespace: %w", openErr)
			return
		}
		defer before.Close()
		err = fn()
		if unix.Setns(int(before.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-done
}
