//go:build !linux

package cli

import (
	"context"
	"io"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type embeddedOptions struct {
	drive    bool
	wait     time.Duration
	stateDir string
}

type embedded struct {
	runs  tcplabv1.RunServiceClient
	agent tcplabv1.AgentServiceClient
	close func() error
}

// openEmbedded refuses: labs are built from Linux network stacks.
func (a *app) openEmbedded(context.Context, embeddedOptions) (*embedded, error) {
	return nil, &statusError{status: exitHost, message: "labs are built from Linux network stacks, and this is not Linux", remedy: "run tcplab on a Linux machine or in a virtual one"}
}

func (a *app) enterUserNamespace(context.Context, io.Reader) (int, bool, error) { return 0, false, nil }

func enterCommand(netnsPath string) string { return "nsenter --net=" + netnsPath }
