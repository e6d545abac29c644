package agent

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// program starts a program in a deployment.
func (r *running) program(t *testing.T, start *tcplabv1.Program) tcplabv1.AgentService_RunProgramClient {
	t.Helper()
	stream, err := r.RunProgram(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&tcplabv1.RunProgramRequest{DeploymentId: "d", Input: &tcplabv1.ProgramInput{Input: &tcplabv1.ProgramInput_Start{Start: start}}})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// hear reads a program's outputs to its end.
func hear(t *testing.T, stream tcplabv1.AgentService_RunProgramClient) (stdout, stderr string, taken uint64, exit *tcplabv1.ProgramExit) {
	t.Helper()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stdout, stderr, taken, exit
		}
		if err != nil {
			t.Fatal(err)
		}
		stdout += string(r.GetOutput().GetStdout())
		stderr += string(r.GetOutput().GetStderr())
		taken += r.GetOutput().GetStdinTaken()
		if e := r.GetOutput().GetExit(); e != nil {
			exit = e
		}
	}
}

func stdin(b []byte) *tcplabv1.RunProgramRequest {
	return &tcplabv1.RunProgramRequest{Input: &tcplabv1.ProgramInput{Input: &tcplabv1.ProgramInput_Stdin{Stdin: b}}}
}

func TestProgram(t *testing.T) {
	r := start(t, t.TempDir())
	r.apply(t, "d", twoNodes(t, nil))
	stream := r.program(t, &tcplabv1.Program{
		Node: "client", Argv: []string{"sh", "-c", "getent hosts server | cut -d' ' -f1; cat; echo $OWN >&2; exit 5"}, Env: map[string]string{"OWN": "own"},
	})
	piece := []byte(strings.Repeat("x", 100_000))
	const pieces = 30 // three times what may wait
	go func() {
		for range pieces {
			if stream.Send(stdin(piece)) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	stdout, stderr, taken, exit := hear(t, stream)
	address, rest, _ := strings.Cut(stdout, "\n")
	if rest != strings.Repeat(string(piece), pieces) || stderr != "own\n" || taken != pieces*uint64(len(piece)) || exit.GetStatus() != 5 {
		t.Errorf("%d bytes, %q, %d taken, %v", len(rest), stderr, taken, exit)
	}
	if !strings.HasPrefix(address, "fd") && !strings.HasPrefix(address, "10.") {
		t.Errorf("the server is at %q", address)
	}
}

func TestProgramRefused(t *testing.T) {
	r := start(t, t.TempDir())
	r.apply(t, "d", twoNodes(t, nil))
	for name, c := range map[string]struct {
		node string
		code codes.Code
	}{"no node": {"nobody", codes.NotFound}} {
		t.Run(name, func(t *testing.T) {
			stream := r.program(t, &tcplabv1.Program{Node: c.node, Argv: []string{"true"}})
			if _, err := stream.Recv(); codeOf(err) != c.code {
				t.Errorf("%v", err)
			}
		})
	}
	stream, err := r.RunProgram(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	first := stdin(nil)
	first.DeploymentId = "d"
	if err := stream.Send(first); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); codeOf(err) != codes.InvalidArgument {
		t.Errorf("without a start: %v", err)
	}
	_, _, _, exit := hear(t, r.program(t, &tcplabv1.Program{Node: "client", Argv: []string{"no-such"}}))
	if exit.GetStatus() != 127 || exit.GetFailure() == "" {
		t.Errorf("a missing program ends with %v", exit)
	}
}

// A signal overtakes input that the program does not take, as long as that is not too much.
func TestSignalBesideInput(t *testing.T) {
	r := start(t, t.TempDir())
	r.apply(t, "d", twoNodes(t, nil))
	stream := r.program(t, &tcplabv1.Program{Node: "client", Argv: []string{"sleep", "1000"}})
	for range 10 {
		if err := stream.Send(stdin(make([]byte, 100_000))); err != nil {
			t.Fatal(err)
		}
	}
	err := stream.Send(&tcplabv1.RunProgramRequest{Input: &tcplabv1.ProgramInput{Input: &tcplabv1.ProgramInput_Signal{Signal: 15}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, exit := hear(t, stream); exit.GetStatus() != 143 || exit.GetSignal() != 15 {
		t.Errorf("it ends with %v", exit)
	}
}

// A removal kills the programs, also one to whose flood of words nobody listens.
func TestRemoveEndsPrograms(t *testing.T) {
	r := start(t, t.TempDir())
	r.apply(t, "d", twoNodes(t, nil))
	stream := r.program(t, &tcplabv1.Program{Node: "client", Argv: []string{"yes"}})
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := r.Remove(r.ctx, &tcplabv1.RemoveRequest{DeploymentId: "d"}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the removal took %v", took)
	}
	for {
		if _, err := stream.Recv(); err != nil {
			if codeOf(err) != codes.Aborted {
				t.Errorf("the program ends with %v", err)
			}
			break
		}
	}
	if stream := r.program(t, &tcplabv1.Program{Node: "client", Argv: []string{"true"}}); stream != nil {
		if _, err := stream.Recv(); codeOf(err) != codes.NotFound {
			t.Errorf("a program in what is gone: %v", err)
		}
	}
}
