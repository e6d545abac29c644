// Package uml runs one command as root of a guest kernel: Debian's
// user-mode-linux, an ordinary process that needs no virtualisation and no
// privilege. It serves to test on kernel features that the machine's own kernel
// has not, sch_netem and tcp_cubic for instance.
//
// The guest sees the host's files at their places. What it writes stays in its
// memory and ends with it, but for the folders named in [Config.Writable]. It
// has one CPU, a loopback interface and no other, an empty standard input, and
// the host's clock. Kernel modules load on demand, as on a real machine.
//
// The package refuses to be a virtual machine manager: no disks, no network to
// the host, no second command. It runs on x86-64, as the kernel does.
package uml

import (
	"fmt"
	"io"
	"syscall"
)

// Config says how the guest is made. The zero value works where Debian's
// packages user-mode-linux and kmod are installed.
type Config struct {
	Kernel   string    // the kernel's program; "linux.uml" by default
	Modules  string    // the folder with its modules by release; /usr/lib/uml/modules by default
	Memory   int64     // bytes, files that the guest writes included; 1 GiB by default
	Dir      string    // absolute working folder of the command; this process's by default
	Env      []string  // of the command; this process's by default
	Writable []string  // absolute folders where the guest writes to the host
	Stdout   io.Writer // of the command; discarded when nil
	Stderr   io.Writer // of the command; discarded when nil; one stream with Stdout if it is the same writer
	Log      io.Writer // all that the kernel says; without it warnings alone are kept, for errors
}

// ExitError tells that the command ran and did not succeed.
type ExitError struct {
	Status int            // 1 to 255; 128 and the signal where one ended the command
	Signal syscall.Signal // 0 where none did
}

func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("the command in the guest was ended by the signal %v", e.Signal)
	}
	return fmt.Sprintf("the command in the guest ended with the exit status %d", e.Status)
}

// GuestError tells that the guest did not carry the command out: it did not
// boot, could not start the command, crashed, or ran out of time.
type GuestError struct {
	Err error  // what went wrong, as far as the host or the guest's init knows
	Log string // the end of the kernel's log
}

func (e *GuestError) Error() string {
	return fmt.Sprintf("user-mode-linux: %v; the kernel's last words:\n%s", e.Err, e.Log)
}

// Unwrap is the cause: context.DeadlineExceeded for instance.
func (e *GuestError) Unwrap() error { return e.Err }
