package uml

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
)

// Machine says how a guest kernel is booted.
type Machine struct {
	Kernel string   // the kernel's program
	Dir    string   // an absolute folder for the kernel's own files, without spaces in its name; the caller removes it
	Memory int64    // bytes; 1 GiB by default
	Params []string // the kernel's further parameters, and after "--" the arguments of its init
	Env    []string // of the kernel's process, beside TMPDIR
	Talk   bool     // have the kernel tell all, not warnings alone
	// Outputs take what the guest writes to /dev/tty0 (the kernel's own words and its init's), /dev/tty1 and
	// so on.
	Outputs []io.Writer
	// Input is the reading end of a pipe, which becomes the guest's console after those; Boot closes it.
	// Nil: there is no such console.
	Input *os.File
	// Log takes what the kernel's process itself says.
	Log io.Writer
	// CPU is the processor to run on where there are several, from 0; more than there are begin anew.
	// Default: the last one that this process may use.
	CPU *int
	// Tied says that all processes of this kernel end with its first, as those do that package kernel builds. Then
	// the guest needs no namespace of processes, which not everybody may make.
	Tied bool
	// Started is told of the kernel's process, which is Boot's to wait for; nil: nobody is.
	Started func(*os.Process)
}

// Boot runs the kernel until it ends and returns how the process ended, which
// says little: a kernel that halts and one that panics may both exit with 0 or 1.
// When the context ends, and when this process dies in any way, the whole guest is killed.
func Boot(ctx context.Context, m Machine) error {
	talk := "quiet"
	if m.Talk {
		talk = "loglevel=7"
	}
	params := []string{
		fmt.Sprintf("mem=%dM", cmp.Or(m.Memory, 1<<30)>>20),
		"uml_dir=" + m.Dir + "/", "umid=guest",
		"root=hostfs", "rootfstype=hostfs", "rootflags=/", "ro",
		// A panic ends the process rather than leaving it to spin.
		"panic=-1", "noreboot", talk, "con=null",
	}
	const first = 3 // descriptor of what is passed on
	for i := range m.Outputs {
		params = append(params, fmt.Sprintf("con%d=null,fd:%d", i, first+i))
	}
	if m.Input != nil {
		params = append(params, fmt.Sprintf("con%d=fd:%d,null", len(m.Outputs), first+len(m.Outputs)))
	}
	// The kernel is several processes, which do not all end with the first. The
	// shell is the init of a process namespace and takes them with it; the kernel
	// itself could not be, since an init does not die of the abort that ends a panic.
	args := slices.Concat([]string{"/bin/sh", "-c", `"$@"; exit $?`, "sh", m.Kernel}, params, m.Params)
	if m.Tied {
		args = args[4:]
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append([]string{"TMPDIR=" + os.Getenv("TMPDIR")}, m.Env...)
	cmd.Stdout, cmd.Stderr = m.Log, m.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if !m.Tied {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	if !m.Tied && os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}

	var copies sync.WaitGroup
	var theirs []*os.File
	defer copies.Wait()
	for _, to := range m.Outputs {
		from, guests, err := os.Pipe()
		if err != nil {
			closeAll(theirs)
			return err
		}
		theirs = append(theirs, guests)
		copies.Go(func() {
			defer from.Close()
			if _, err := io.Copy(to, from); err != nil {
				fmt.Fprintf(m.Log, "user-mode-linux: pass the output on: %v\n", err)
				// The writer is lost, and the guest must not block on it.
				_, _ = io.Copy(io.Discard, from)
			}
		})
	}
	if m.Input != nil {
		theirs = append(theirs, m.Input)
	}
	cmd.ExtraFiles = theirs
	// The signal at the parent's death is one at the death of the thread that
	// started the child, so that thread is kept until the child has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back := place(m.CPU)
	err := cmd.Start()
	back()
	closeAll(theirs)
	if err != nil {
		return err
	}
	if m.Started != nil {
		m.Started(cmd.Process)
	}
	return cmd.Wait()
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}
