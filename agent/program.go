//go:build linux

package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/agent/program"
	"github.com/tcplab/tcplab/agent/topology"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// outputSize is the most of a program's output in one message (ProgramOutput).
const outputSize = 32 << 10

// resolvConf is a node's /etc/resolv.conf: without a name server the resolver asks
// 127.0.0.1, where nobody listens, and so a name that is no node's fails at once.
const resolvConf = "# Nodes are in /etc/hosts, and this lab has no name server.\noptions timeout:1 attempts:1\n"

// runProgram runs a program in a node until it has ended, ctx has, or the deployment is
// removed. next is called for its inputs until that fails, send for its outputs one at a
// time.
func (d *deployment) runProgram(ctx context.Context, start *tcplabv1.Program,
	next func() (*tcplabv1.ProgramInput, error), send func(*tcplabv1.ProgramOutput) error,
) error {
	ctx, cancel := d.during(ctx)
	defer cancel()
	p, ended, err := d.startProgram(start)
	if err != nil {
		return err
	}
	defer p.Close()
	defer context.AfterFunc(ctx, p.Kill)()
	failed, fail := context.WithCancel(ctx) // what it says can be told to nobody
	defer context.AfterFunc(failed, p.Kill)()
	var mu sync.Mutex // over sends, of which none is after the call
	tell := func(output *tcplabv1.ProgramOutput) {
		mu.Lock()
		defer mu.Unlock()
		if failed.Err() == nil && send(output) != nil {
			fail()
		}
	}
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		fail()
	}()

	<-p.Running()
	tell(&tcplabv1.ProgramOutput{Output: &tcplabv1.ProgramOutput_Started{Started: &tcplabv1.ProgramStarted{}}})
	go feed(p, next, func(n int) {
		tell(&tcplabv1.ProgramOutput{Output: &tcplabv1.ProgramOutput_StdinTaken{StdinTaken: uint64(n)}})
	})
	var reading sync.WaitGroup
	reading.Go(func() {
		relay(p.Stdout, func(b []byte) {
			tell(&tcplabv1.ProgramOutput{Output: &tcplabv1.ProgramOutput_Stdout{Stdout: b}})
		})
	})
	if p.Stderr != nil {
		reading.Go(func() {
			relay(p.Stderr, func(b []byte) {
				tell(&tcplabv1.ProgramOutput{Output: &tcplabv1.ProgramOutput_Stderr{Stderr: b}})
			})
		})
	}
	reading.Wait()
	end := <-ended
	switch {
	case end.err != nil:
		return noProgram(end.err)
	case d.life.Err() != nil:
		return rpcerr.New(codes.Aborted, rpcerr.NotFound, "", "%s was killed: %w", start.GetArgv()[0], context.Cause(d.life))
	}
	tell(&tcplabv1.ProgramOutput{Output: &tcplabv1.ProgramOutput_Exit{Exit: &tcplabv1.ProgramExit{
		Status: uint32(end.exit.Status), Signal: uint32(end.exit.Signal), Failure: end.exit.Failure,
	}}})
	return ctx.Err()
}

// programEnd is how a program ended.
type programEnd struct {
	exit program.Exit
	err  error
}

// startProgram starts a program, and keeps what stands until its processes have ended;
// whoever is to be told of it may take longer. The caller closes it.
func (d *deployment) startProgram(start *tcplabv1.Program) (*program.Program, <-chan programEnd, error) {
	leave, err := d.enter()
	if err != nil {
		return nil, nil, err
	}
	spec, err := d.programSpec(start)
	if err != nil {
		leave()
		return nil, nil, err
	}
	p, err := program.Start(spec)
	if err != nil {
		leave()
		return nil, nil, noProgram(err)
	}
	ended := make(chan programEnd, 1)
	go func() {
		defer leave()
		exit, err := p.Wait()
		ended <- programEnd{exit, err}
	}()
	return p, ended, nil
}

// programSpec is a program with what surrounds it.
func (d *deployment) programSpec(start *tcplabv1.Program) (program.Spec, error) {
	spec, err := d.surroundings(start.GetNode())
	if err != nil {
		return program.Spec{}, err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	spec.Argv, spec.Dir = start.GetArgv(), start.GetDir()
	spec.Env = program.Environment(home, start.GetTerminal() != nil, start.GetEnv())
	if size := start.GetTerminal(); size != nil {
		spec.Terminal = sizeOf(size)
	}
	return spec, nil
}

// surroundings are what a node is to every program in it.
func (d *deployment) surroundings(node string) (program.Spec, error) {
	i := slices.IndexFunc(d.plan.Nodes, func(n topology.Node) bool { return n.Name == node })
	if i < 0 {
		return program.Spec{}, rpcerr.New(codes.NotFound, rpcerr.NotFound, "", "deployment %s has no node %s", d.id, node)
	}
	if d.plan.Nodes[i].Foreign {
		return program.Spec{}, rpcerr.New(codes.FailedPrecondition, rpcerr.LabInvalid, "Start programs of this host as ever: the link shapes what they send.",
			"node %s is not of the lab's own making: there is nothing to enter", node)
	}
	return program.Spec{Node: d.standing.Nodes[i], HostName: node, Hosts: d.plan.Hosts(i), Resolv: resolvConf}, nil
}

func sizeOf(s *tcplabv1.TerminalSize) *program.Size {
	return &program.Size{Columns: uint16(s.GetColumns()), Rows: uint16(s.GetRows())}
}

// noProgram says that this host cannot run programs in nodes.
func noProgram(err error) error {
	return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported,
		"Programs in nodes need mount and process ID namespaces, with /proc and /sys of their own; in a container that wants it privileged.",
		"%w", err)
}

// waitingInput is how many pieces of standard input may wait for a program to take them
// (ProgramInput.stdin).
const waitingInput = 64

// feed gives a program its inputs until there are no more, which ends its standard input, or
// the call has ended. taken is told how much of its standard input it has taken.
func feed(p *program.Program, next func() (*tcplabv1.ProgramInput, error), taken func(int)) {
	pieces := make(chan []byte, waitingInput)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		refused := false // it need not take all
		for piece := range pieces {
			if piece == nil {
				_ = p.EndInput()
				continue
			}
			if !refused {
				_, err := p.Stdin.Write(piece)
				refused = err != nil
			}
			taken(len(piece))
		}
	}()
	defer func() {
		close(pieces)
		<-ended
	}()
	for {
		input, err := next()
		if errors.Is(err, io.EOF) {
			pieces <- nil
			return
		}
		if err != nil {
			return
		}
		switch in := input.GetInput().(type) {
		case *tcplabv1.ProgramInput_Stdin:
			if len(in.Stdin) > 0 {
				pieces <- in.Stdin
			}
		case *tcplabv1.ProgramInput_StdinEnd:
			pieces <- nil
		case *tcplabv1.ProgramInput_TerminalSize:
			_ = p.Resize(*sizeOf(in.TerminalSize)) // it may have ended
		case *tcplabv1.ProgramInput_Signal:
			_ = p.Signal(syscall.Signal(in.Signal)) // likewise
		}
	}
}

// relay hands on what is read until it ends; a program that was killed has no more to say.
func relay(r io.Reader, tell func([]byte)) {
	for {
		piece := make([]byte, outputSize)
		n, err := r.Read(piece)
		if n > 0 {
			tell(piece[:n])
		}
		if err != nil {
			return
		}
	}
}
