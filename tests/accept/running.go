package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// saysWithin bounds how long a program may take to say what is waited for.
const saysWithin = time.Minute

// running is a program under way, whose diagnostics can be waited for.
type running struct {
	*exec.Cmd
	mu    sync.Mutex
	lines []string
	more  chan struct{} // a line came, or the end
	ended bool
}

// start starts tcplab as Run does.
func (b *Bench) start(ctx context.Context, args ...string) (*running, error) {
	command := exec.CommandContext(ctx, b.Tcplab, args...)
	command.Dir = b.Root
	command.Env = append(os.Environ(), "TCPLAB_STATE_DIR="+filepath.Join(b.Dir, "state"))
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 5 * time.Second
	diagnostics, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start tcplab: %w", err)
	}
	r := &running{Cmd: command, more: make(chan struct{}, 1)}
	go func() {
		// Ends with the program, whose end closes the pipe.
		for scanner := bufio.NewScanner(diagnostics); scanner.Scan(); r.tell() {
			r.mu.Lock()
			r.lines = append(r.lines, scanner.Text())
			r.mu.Unlock()
		}
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		r.tell()
	}()
	return r, nil
}

func (r *running) tell() {
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// said is what the program has said so far.
func (r *running) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// says waits until the program says a word.
func (r *running) says(word string) error {
	late := time.After(saysWithin)
	for {
		r.mu.Lock()
		found, ended := strings.Contains(strings.Join(r.lines, "\n"), word), r.ended
		r.mu.Unlock()
		switch {
		case found:
			return nil
		case ended:
			return fmt.Errorf("it ended without a word of %q: %s", word, lastLines(r.said()))
		}
		select {
		case <-r.more:
		case <-late:
			return fmt.Errorf("no word of %q within %v: %s", word, saysWithin, lastLines(r.said()))
		}
	}
}
