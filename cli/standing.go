package cli

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Labs stand at the controller of the context, and where there is none in holders on this machine.

// makeStand makes a lab stand. When ctx ends before that, nothing is left.
func (a *app) makeStand(ctx context.Context, name string, request *tcplabv1.CreateDeploymentRequest) (d *tcplabv1.Deployment, err error) {
	remote, err := a.openContext(ctx)
	if err != nil {
		return nil, err
	}
	if remote == nil {
		return a.makeStandHere(ctx, name, request)
	}
	defer remote.closeQuietly()
	created, err := remote.labs.CreateDeployment(ctx, request)
	return created.GetDeployment(), err
}

// withStanding calls fn with the service that knows a standing lab.
func (a *app) withStanding(ctx context.Context, name string, fn func(tcplabv1.LabServiceClient) error) error {
	remote, err := a.openContext(ctx)
	if err != nil {
		return err
	}
	if remote == nil {
		return a.withStandingHere(ctx, name, fn)
	}
	defer remote.closeQuietly()
	return fn(remote.labs)
}

// listWithin bounds what a controller may take to name its labs.
const listWithin = 10 * time.Second

// standingLabs names the labs that stand, in order.
func (a *app) standingLabs() (names []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), listWithin)
	defer cancel()
	remote, err := a.openContext(ctx)
	if err != nil {
		return nil, err
	}
	if remote == nil {
		return a.standingLabsHere()
	}
	defer remote.closeQuietly()
	for token := ""; ; {
		page, err := remote.labs.ListDeployments(ctx, &tcplabv1.ListDeploymentsRequest{PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, d := range page.GetDeployments() {
			names = append(names, d.GetName())
		}
		if token = page.GetNextPageToken(); token == "" {
			return names, nil
		}
	}
}

// takeDown ends a lab.
func (a *app) takeDown(ctx context.Context, name string) error {
	remote, err := a.openContext(ctx)
	if err != nil {
		return err
	}
	if remote == nil {
		return a.takeDownHere(ctx, name)
	}
	defer remote.closeQuietly()
	_, err = remote.labs.DeleteDeployment(ctx, &tcplabv1.DeleteDeploymentRequest{Name: name})
	if rpcerr.From(err) != nil && rpcerr.From(err).Code == codes.NotFound {
		return &statusError{status: exitUsage, message: rpcerr.From(err).Message, remedy: "`tcplab ps` lists what stands"}
	}
	return err
}
