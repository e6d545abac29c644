package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// command is tcplab itself, from its start until it has printed the verdict and left
// nothing, with a state folder that does not exist before.
func command(tcplab string) Measurement {
	return Measurement{
		Name: "tcplab run handshake", Limit: 30 * time.Second,
		Rows: []Row{{Name: "tcplab run handshake, from start to verdict", Unit: "s", Digits: 2, Target: atMost(3)}},
		Once: func(ctx context.Context) (_ []Figure, err error) {
			dir, err := os.MkdirTemp("", "tcplab-bench-")
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			run := exec.CommandContext(ctx, tcplab, "run", "handshake", "--state-dir", filepath.Join(dir, "state"))
			// At the end of the context it is asked first, so that it clears up.
			run.Cancel = func() error { return run.Process.Signal(syscall.SIGTERM) }
			run.WaitDelay = 5 * time.Second
			begin := time.Now()
			out, err := run.CombinedOutput()
			took := time.Since(begin)
			if err != nil {
				return nil, fmt.Errorf("tcplab run handshake: %w: %s", err, out)
			}
			return []Figure{{Ours: took.Seconds()}}, nil
		},
	}
}
