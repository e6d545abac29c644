package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Watchdog is a process of its own that outlives the one it watches, and then
// undoes what that one's journals say. It holds one end of a pipe: when the
// process that has the other end dies in any way, kill -9 included, the kernel
// closes it.
type Watchdog struct {
	process int
	kill    func() error
	alive   *os.File // the pipe's end whose closing is the signal
	ended   chan struct{}
	closing sync.Once
}

// WatchdogOptions say how a watchdog is started.
type WatchdogOptions struct {
	// Command is the program and its arguments, to which the folder of the journals and
	// this process's ID are appended. It calls [Watch].
	Command []string
	// Dir is the folder of the journals.
	Dir string
	// Env is the program's environment; nil: this process's.
	Env []string
	// Stderr takes what the program says; nil: nobody.
	Stderr *os.File
	// Lost is called, on a goroutine of the watchdog's, should it end before Close.
	Lost func(error)
}

const (
	// watchdogReady bounds the wait for a new watchdog's first sign.
	watchdogReady = 10 * time.Second
	// rollbackWithin bounds a watchdog's work.
	rollbackWithin = 10 * time.Second
	// Descriptors of the watchdog's process, as exec.Cmd.ExtraFiles numbers them.
	pipeFD, readyFD = 3, 4
)

// StartWatchdog starts a watchdog in the namespaces of the calling thread. When
// it returns, the watchdog watches.
func StartWatchdog(o WatchdogOptions) (*Watchdog, error) {
	if len(o.Command) == 0 {
		return nil, errors.New("start a watchdog: no program to start")
	}
	watched, alive, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start a watchdog: %w", err)
	}
	defer watched.Close()
	ready, sign, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a watchdog: %w", err), alive.Close())
	}
	defer ready.Close()
	arguments := append(append([]string{}, o.Command[1:]...), o.Dir, strconv.Itoa(os.Getpid()))
	// No context: it must outlive whatever ends here.
	command := exec.Command(o.Command[0], arguments...) //nolint:noctx // ends by its pipe
	command.Env = o.Env
	command.Dir = "/"
	if o.Stderr != nil {
		command.Stderr = o.Stderr
	}
	command.ExtraFiles = []*os.File{watched, sign}
	// A session of its own: what a terminal sends to this process's group does not reach it.
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = command.Start()
	sign.Close()
	if err == nil {
		err = awaitSign(ready)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("start a watchdog: %s: %w", o.Command[0], err), alive.Close())
		if command.Process != nil {
			err = errors.Join(err, command.Process.Kill())
			_ = command.Wait() // it was killed
		}
		return nil, err
	}
	w := &Watchdog{alive: alive, process: command.Process.Pid, ended: make(chan struct{}), kill: command.Process.Kill}
	go func() {
		defer close(w.ended)
		err := command.Wait()
		w.closing.Do(func() {
			err = errors.Join(errors.New("the watchdog has ended"), err, alive.Close())
			if o.Lost != nil {
				o.Lost(err)
			}
		})
	}()
	return w, nil
}

// awaitSign waits for a new watchdog's first sign.
func awaitSign(ready *os.File) error {
	if err := ready.SetReadDeadline(time.Now().Add(watchdogReady)); err != nil {
		return err
	}
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return fmt.Errorf("it gives no sign: %w", err)
	}
	return nil
}

// Process is the watchdog's process ID.
func (w *Watchdog) Process() int { return w.process }

// Close ends the watchdog, and waits for its end. It finds nothing to undo where
// all journals are closed.
func (w *Watchdog) Close() error {
	var err error
	w.closing.Do(func() { err = w.alive.Close() })
	select {
	case <-w.ended:
	case <-time.After(rollbackWithin + time.Second):
		err = errors.Join(err, errors.New("the watchdog does not end"), w.kill())
		<-w.ended
	}
	return err
}

// Watch is the watchdog's own work: it waits until the process that started it has
// ended, and then rolls back. arguments are the last two of its command line.
// It leaves nothing but its exit.
func Watch(arguments []string, o RollbackOptions) error {
	if len(arguments) != 2 {
		return errors.New("a watchdog is started by an agent, and not by hand")
	}
	process, err := strconv.Atoi(arguments[1])
	if err != nil {
		return fmt.Errorf("a watchdog is started by an agent: %q is no process ID", arguments[1])
	}
	// Whoever ends it ends what it is there for; kill -9 is left.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	watched, ready := os.NewFile(pipeFD, "watched"), os.NewFile(readyFD, "ready")
	if watched == nil || ready == nil {
		return errors.New("a watchdog is started by an agent, and not by hand")
	}
	if _, err := ready.Write([]byte{1}); err != nil {
		return fmt.Errorf("say that the watchdog watches: %w", err)
	}
	ready.Close()
	// Nothing is ever written: this ends with the writer.
	if _, err := io.Copy(io.Discard, watched); err != nil {
		return fmt.Errorf("watch process %d: %w", process, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), rollbackWithin)
	defer cancel()
	o.Dir, o.Process = arguments[0], process
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return Rollback(ctx, o)
}
