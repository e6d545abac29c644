package standing

import (
	"context"
	"errors"
	"io"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Exec runs a program in a node, until it has ended or ctx has, which kills it. next is called for its
// inputs until that fails, send for its outputs.
func (s *Deployments) Exec(ctx context.Context, name string, start *tcplabv1.ProgramInput,
	next func() (*tcplabv1.ProgramInput, error), send func(*tcplabv1.ProgramOutput) error,
) error {
	d, err := s.find(ctx, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.agent.RunProgram(ctx)
	if err != nil {
		return agentError(err, "run a program in deployment %s", name)
	}
	// What a failed Send has to say is said by Recv.
	_ = stream.Send(&tcplabv1.RunProgramRequest{Term: s.cfg.Term, DeploymentId: d.id(), Input: start})
	go func() { // ends with the call: then next fails
		for {
			input, err := next()
			if errors.Is(err, io.EOF) {
				_ = stream.CloseSend()
				return
			}
			if err != nil || stream.Send(&tcplabv1.RunProgramRequest{Input: input}) != nil {
				return
			}
		}
	}()
	for ended := false; ; {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) || ended && ctx.Err() != nil { // who has heard of the end hangs up
			return nil
		}
		if err != nil {
			return agentError(err, "run a program in deployment %s", name)
		}
		ended = ended || response.GetOutput().GetExit() != nil
		if err := send(response.GetOutput()); err != nil {
			return err
		}
	}
}
