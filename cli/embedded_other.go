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
	labs  tcplabv1.LabServiceClient
	agent tcplabv1.AgentServiceClient
	close func() error
}

// errNotLinux says that labs are built from Linux network stacks.
func errNotLinux() error {
	return &statusError{status: exitHost, message: "labs are built from Linux network stacks, and this is not Linux", remedy: "run tcplab on a Linux machine or in a virtual one"}
}

func (a *app) openEmbedded(context.Context, embeddedOptions) (*embedded, error) {
	return nil, errNotLinux()
}

func (a *app) hold(context.Context, string) error { return errNotLinux() }

func (a *app) makeStand(context.Context, string, *tcplabv1.CreateDeploymentRequest) (*tcplabv1.Deployment, error) {
	return nil, errNotLinux()
}

func (a *app) withStanding(context.Context, string, func(tcplabv1.LabServiceClient) error) error {
	return errNotLinux()
}

func (a *app) standingLabs() ([]string, error) { return nil, errNotLinux() }

func (a *app) takeDown(context.Context, string) error { return errNotLinux() }

func firstOfProgram() (status int, is bool) { return 0, false }

func (a *app) enterUserNamespace(context.Context, io.Reader) (int, bool, error) { return 0, false, nil }

func enterCommand(netnsPath string) string { return "nsenter --net=" + netnsPath }
