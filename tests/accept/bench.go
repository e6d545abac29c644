package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Bench is what checks work with: the repository, the built programs, a folder.
type Bench struct {
	Root   string // of the repository
	Tcplab string // bin/tcplab, built
	Umlrun string // bin/umlrun, built
	Dir    string // a temporary folder that is removed at the end
	Rows   string // regexp of the rows that tables are limited to; empty: all
}

// environment is what the programs get.
func (b *Bench) environment() []string {
	return append(os.Environ(), "XDG_STATE_HOME="+b.Dir, "TCPLAB_RUNTIME_DIR="+filepath.Join(b.Dir, "run"), "TCPLAB_STATE_DIR="+filepath.Join(b.Dir, "state"))
}

// Result is how a program ended.
type Result struct {
	Status int // exit status; 128 and the signal where one ended it
	Stdout string
	Stderr string
	Took   time.Duration
}

// newBench finds the repository from the working folder upwards.
func newBench() (*Bench, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "buf.yaml")); err == nil {
			break
		}
		parent := filepath.Dir(root)
		if parent == root {
			return nil, errors.New("run it in the repository: no buf.yaml here or above")
		}
		root = parent
	}
	dir, err := os.MkdirTemp("", "tcplab-accept-")
	if err != nil {
		return nil, fmt.Errorf("make a folder to work in: %w", err)
	}
	return &Bench{
		Root:   root,
		Tcplab: filepath.Join(root, "bin", "tcplab"),
		Umlrun: filepath.Join(root, "bin", "umlrun"),
		Dir:    dir,
	}, nil
}

func (b *Bench) close() { os.RemoveAll(b.Dir) }

// Run runs tcplab with a state folder of the bench's own. The error says that it
// could not be run, not how it ended.
func (b *Bench) Run(ctx context.Context, args ...string) (Result, error) {
	return b.Exec(ctx, b.Tcplab, args...)
}

// RunInGuest runs tcplab as root of a user-mode-linux guest, whose kernel has
// netem. Nothing that it writes is left.
func (b *Bench) RunInGuest(ctx context.Context, args ...string) (Result, error) {
	return b.Exec(ctx, b.Umlrun, append([]string{"--", b.Tcplab}, args...)...)
}

// Exec runs a program in the repository's root, told to keep its state in the
// bench's folder (XDG_STATE_HOME, and TCPLAB_STATE_DIR for root too).
func (b *Bench) Exec(ctx context.Context, program string, args ...string) (Result, error) {
	var out, diagnostics bytes.Buffer
	command := exec.CommandContext(ctx, program, args...)
	command.Dir = b.Root
	command.Env = b.environment()
	command.Stdout, command.Stderr = &out, &diagnostics
	// At the end of the context the program is asked first, so that it clears up.
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 5 * time.Second
	start := time.Now()
	err := command.Run()
	result := Result{Stdout: out.String(), Stderr: diagnostics.String(), Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return result, fmt.Errorf("run %s: %w", filepath.Base(program), ctx.Err())
	case errors.As(err, &exit):
		result.Status = exit.ExitCode()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			result.Status = 128 + int(status.Signal())
		}
	case err != nil:
		return result, fmt.Errorf("run %s: %w", filepath.Base(program), err)
	}
	return result, nil
}
