//go:build linux

package agent

import (
	"sync"

	"github.com/tcplab/tcplab/agent/flow/command"
	"github.com/tcplab/tcplab/agent/spool"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// artifacts are the files that a trial's flows leave beside its result.
type artifacts struct {
	trial *spool.Trial

	mu    sync.Mutex
	whole []*tcplabv1.Artifact // committed
}

// keep starts a file.
func (a *artifacts) keep(name string) (command.Artifact, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	file, err := a.trial.Create(name)
	if err != nil {
		return nil, err
	}
	return &artifact{file, a}, nil
}

// committed are those that are whole, in the order in which they became so.
func (a *artifacts) committed() []*tcplabv1.Artifact {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.whole
}

type artifact struct {
	*spool.File
	of *artifacts
}

// Commit makes the file a part of the trial.
func (f *artifact) Commit() error {
	whole, err := f.File.Commit()
	if err != nil {
		return err
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.of.whole = append(f.of.whole, whole)
	return nil
}
