//go:build !linux

package cli

import (
	"context"
	"io"
	"net"
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

func (a *app) makeStandHere(context.Context, string, *tcplabv1.CreateDeploymentRequest) (*tcplabv1.Deployment, error) {
	return nil, errNotLinux()
}

func (a *app) withStandingHere(context.Context, string, func(tcplabv1.LabServiceClient) error) error {
	return errNotLinux()
}

func (a *app) standingLabsHere() ([]string, error) { return nil, errNotLinux() }

func (a *app) takeDownHere(context.Context, string) error { return errNotLinux() }

func (a *app) serveController(context.Context, *controllerFlags) error { return errNotLinux() }

func (a *app) serveAgent(context.Context, *agentFlags) error { return errNotLinux() }

func (a *app) leaveAgent(context.Context, bool) error { return errNotLinux() }

func (a *app) rollbackAgent(context.Context) error { return errNotLinux() }

func dialOnce(context.Context, string) (net.Conn, error) { return nil, errNotLinux() }

func firstOfGuest() (status int, is bool) { return 0, false }

func firstOfProgram() (status int, is bool) { return 0, false }

func (a *app) enterUserNamespace(context.Context, io.Reader) (int, bool, error) { return 0, false, nil }

func enterCommand(netnsPath string) string { return "nsenter --net=" + netnsPath }
