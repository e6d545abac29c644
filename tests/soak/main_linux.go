// Command soak leaves a real fleet in trouble for a while: a controller and agents as processes on machines of their own
// (package fleet) are killed with -9, cut off, starved of disk and given a wrong time at random moments, while runs go on. At the end nothing may be
// lost, left, stuck or leaked.
//
//	make soak [DURATION=10m] [SEED=1]
//
// The schedule follows from the seed, which is printed; when a fault meets what is up to the machine.
//
// It refuses to skew clocks by more than certificates allow for: a host that is further behind is refused by TLS, and rightly.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inside says that this process has a mount namespace of its own, for small disks that go with it.
const inside = "TCPLAB_SOAK_INSIDE"

func main() {
	if os.Getenv(inside) == "" {
		os.Exit(apart())
	}
	tcplab := flag.String("tcplab", "bin/tcplab", "the program")
	duration := flag.Duration("duration", 10*time.Minute, "how long there is trouble")
	seed := flag.Uint64("seed", 0, "of the schedule; 0: drawn")
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	fmt.Fprintf(os.Stdout, "soak: %v, seed %d\n", *duration, *seed)
	if err := run(ctx, *tcplab, *duration, *seed); err != nil {
		fmt.Fprintf(os.Stdout, "FAIL (SEED=%d)\n%v\n", *seed, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, "PASS")
}

// apart runs this program in a mount namespace of its own, and returns its exit status.
func apart() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // a signal reaches both
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		fmt.Fprintln(os.Stderr, "soak: it takes root:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// run makes the fleet, troubles it and looks at what became of it.
func run(ctx context.Context, tcplab string, duration time.Duration, seed uint64) (err error) {
	tcplab, err = filepath.Abs(tcplab)
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to this namespace: %w", err)
	}
	dir, err := os.MkdirTemp("", "tcplab-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := begin(ctx, tcplab, dir, seed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.trouble(ctx, duration); err != nil {
		return err
	}
	if err := s.age(ctx, min(duration/4, time.Minute)); err != nil {
		return err
	}
	return s.judge(ctx)
}
