package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tcplab/tcplab/agent"
	"github.com/tcplab/tcplab/agent/program"
	"github.com/tcplab/tcplab/agent/virtual"
	"github.com/tcplab/tcplab/controller"
	"github.com/tcplab/tcplab/controller/store"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// pipeSize is the buffer of a connection within the process, in bytes.
const pipeSize = 1 << 20

// socketName is the controller's socket in the state directory, by which other
// commands of the same user reach the run under way.
const socketName = controllerSocket

// policyVar names the environment variable with the path of the host's policy, where it is
// not policy.DefaultPath.
const policyVar = "TCPLAB_AGENT_CONFIG"

// embeddedOptions say what a command needs of the embedded lab.
type embeddedOptions struct {
	// drive: runs will be made here, so the state directory is waited for, up
	// to wait. Without it, a process that drives already is asked instead.
	drive bool
	wait  time.Duration
	// stateDir replaces the user's.
	stateDir string
}

// embedded is a controller and an agent in this process, speaking the gRPC
// that they would speak between machines; or a connection to the process that
// has them.
type embedded struct {
	runs  tcplabv1.RunServiceClient
	labs  tcplabv1.LabServiceClient
	agent tcplabv1.AgentServiceClient // nil where another process drives
	close func() error                // ends all of it; call once
}

func (a *app) openEmbedded(ctx context.Context, o embeddedOptions) (*embedded, error) {
	dir := o.stateDir
	if dir == "" {
		var err error
		if dir, err = a.stateDirectory(); err != nil {
			return nil, err
		}
	}
	options := store.Options{Log: a.log.With("part", "store")}
	if o.drive {
		options.Wait = o.wait
		options.Waiting = func(holder store.Holder) {
			a.printf("waiting for %s; Ctrl-C gives up\n", holder)
		}
	}
	st, err := store.Open(ctx, dir, options)
	if errors.Is(err, store.ErrLocked) && !o.drive {
		return dialSocket(ctx, dir)
	}
	if err != nil {
		return nil, err
	}
	lab, err := a.serve(ctx, dir, st, nil)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return lab, nil
}

// serve starts agent and controller over an open store, which they own from
// then on, or without one: then labs can stand, and not be run. emptied is
// called when none stands any more; it may be nil.
func (a *app) serve(ctx context.Context, dir string, st *store.Store, emptied func()) (*embedded, error) {
	socket, err := listenSocket(ctx, dir)
	if err != nil {
		return nil, err
	}
	agentPipe, controllerPipe := bufconn.Listen(pipeSize), bufconn.Listen(pipeSize)
	agentConn, err := connect(agentPipe.DialContext)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	controllerConn, err := connect(controllerPipe.DialContext)
	if err != nil {
		return nil, errors.Join(err, agentConn.Close(), socket.Close())
	}
	hostName, err := os.Hostname()
	if err != nil {
		hostName = "localhost"
	}
	agentClient := tcplabv1.NewAgentServiceClient(agentConn)
	journals := dir
	if st == nil {
		// They outlive a holder's folder.
		if journals, err = a.stateDirectory(); err != nil {
			return nil, errors.Join(err, agentConn.Close(), controllerConn.Close(), socket.Close())
		}
	}

	guests, err := a.guests(dir, hostName)
	if err != nil {
		return nil, errors.Join(err, agentConn.Close(), controllerConn.Close(), socket.Close())
	}

	// The controller ends before the agents that it commands.
	controllerCtx, stopController := context.WithCancel(context.Background())
	agentCtx, stopAgent := context.WithCancel(context.Background())
	var controllerGroup, agentGroup errgroup.Group
	agentGroup.Go(func() error {
		return agent.Run(agentCtx, agent.Config{
			// A controller of this process has no claim on an earlier one's results.
			SpoolDir: filepath.Join(dir, "spool"), DiscardSpool: true, HostName: hostName, Version: version(), Log: a.log.With("part", "agent"),
			JournalDir: filepath.Join(journals, "journals"), PolicyPath: a.Getenv(policyVar), Watchdog: watchdog(),
			Private: a.privateFolders(dir),
		}, agentPipe)
	})
	agentGroup.Go(func() error { return guests.run(agentCtx) })
	controllerGroup.Go(func() error {
		return controller.Run(controllerCtx, controller.Config{
			Store: st, Agent: agentClient, Virtual: guests.client, Emptied: emptied, Log: a.log.With("part", "controller"),
		}, controllerPipe, socket)
	})
	return &embedded{
		runs:  tcplabv1.NewRunServiceClient(controllerConn),
		labs:  tcplabv1.NewLabServiceClient(controllerConn),
		agent: agentClient,
		close: func() error {
			stopController()
			err := controllerGroup.Wait()
			stopAgent()
			err = errors.Join(err, agentGroup.Wait(), controllerConn.Close(), agentConn.Close(), guests.conn.Close())
			if st != nil {
				// Last of all the store, whose lock lets the next process in.
				err = errors.Join(err, st.Close())
			}
			return err
		},
	}, nil
}

// privateFolders are those of tcplab's own state and of its standing labs, as far as there
// are any.
func (a *app) privateFolders(dir string) []string {
	all := []string{dir}
	for _, find := range []func() (string, error){a.stateDirectory, a.runtimeDirectory} {
		if found, err := find(); err == nil {
			all = append(all, found)
		}
	}
	return all
}

// guests is the agent of virtual time.
type guests struct {
	conn   *grpc.ClientConn
	client tcplabv1.AgentServiceClient
	run    func(context.Context) error // until the context ends
}

// guests prepares that agent; nothing runs before its run.
func (a *app) guests(dir, hostName string) (*guests, error) {
	pipe := bufconn.Listen(pipeSize)
	conn, err := connect(pipe.DialContext)
	if err != nil {
		return nil, err
	}
	kernels, err := a.kernelFolders()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &guests{conn: conn, client: tcplabv1.NewAgentServiceClient(conn), run: func(ctx context.Context) error {
		return virtual.Run(ctx, virtual.Config{
			Dir: filepath.Join(dir, "guests"), Kernels: kernels, HostName: hostName, Version: version(), Log: a.log.With("part", "guests"),
		}, pipe)
	}}, nil
}

// firstOfGuest is this process's part where it is the init of a guest in virtual time.
func firstOfGuest() (status int, is bool) {
	if !virtual.IsGuest() {
		return 0, false
	}
	return virtual.Guest(), true
}

// firstOfProgram is this process's part where it is the first one of a program in a node, and
// not tcplab.
func firstOfProgram() (status int, is bool) {
	if !program.IsFirst() {
		return 0, false
	}
	return program.First(), true
}

// connect makes a client of whatever listens where dial leads.
func connect(dial func(context.Context) (net.Conn, error)) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///tcplab",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(controller.MaxMessage)))
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded lab: %w", err)
	}
	return conn, nil
}
