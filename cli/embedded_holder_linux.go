package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// A holder is a process of its own session in which a lab stands: the embedded
// lab, without runs, behind a socket. It ends when its lab does, on a signal, and when
// whoever started it is gone before the lab stood.

// Descriptors that a holder is started with.
const (
	lifelineFD = 3 // of which the other end is its starter's
	heldLockFD = 4 // the lock of its folder
)

// Bounds of what a holder may take.
const (
	holderListens = 10 * time.Second       // until it serves
	downPolitely  = 700 * time.Millisecond // to take its lab away and end, before it is killed
	downAtAll     = 5 * time.Second        // until a killed one is gone
)

// hold is the holder's whole life.
func (a *app) hold(ctx context.Context, name string) (err error) {
	lifeline, lock := os.NewFile(lifelineFD, "lifeline"), os.NewFile(heldLockFD, "lock")
	defer lock.Close() // held until then
	h, err := a.openHolders()
	if err != nil {
		return err
	}
	if !h.claimed(name, lock) {
		return usageError("hold is what `tcplab up` starts")
	}
	// Whatever runs in the lab must not keep them open.
	syscall.CloseOnExec(lifelineFD)
	syscall.CloseOnExec(heldLockFD)
	defer func() { err = errors.Join(err, h.sweep(name, true)) }()
	emptied := make(chan struct{}, 1)
	lab, err := a.serve(ctx, h.path(name), nil, func() {
		select {
		case emptied <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	orphaned := make(chan struct{})
	go func() {
		defer close(orphaned)
		_, _ = io.Copy(io.Discard, lifeline) // until its starter is gone or done with it
	}()
	select {
	case <-a.Signals:
	case <-emptied:
	case <-orphaned:
		if a.holdsNothing(ctx, lab.labs) {
			break
		}
		select {
		case <-a.Signals:
		case <-emptied:
		}
	}
	return lab.close()
}

// holdsNothing reports whether nothing stands or is being built.
func (a *app) holdsNothing(ctx context.Context, labs tcplabv1.LabServiceClient) bool {
	standing, err := labs.ListDeployments(ctx, &tcplabv1.ListDeploymentsRequest{PageSize: 1})
	return err != nil || len(standing.GetDeployments()) == 0
}

// makeStandHere starts a holder and has it make a lab stand. When ctx ends before that,
// nothing is left.
func (a *app) makeStandHere(ctx context.Context, name string, request *tcplabv1.CreateDeploymentRequest) (_ *tcplabv1.Deployment, err error) {
	h, err := a.openHolders()
	if err != nil {
		return nil, err
	}
	lock, err := h.claim(name)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	holder, lifeline, err := a.startHolder(h, name, lock)
	if err != nil {
		return nil, errors.Join(err, h.sweep(name, true))
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = holder.Wait() // why it ended stands in its log
	}()
	defer func() {
		lifeline.Close() // the holder goes where nothing stands
		if err == nil {
			return
		}
		select {
		case <-ended:
		case <-time.After(downAtAll):
			_ = holder.Process.Kill()
			<-ended
		}
		err = errors.Join(err, h.sweep(name, true))
	}()
	listening, cancel := context.WithTimeout(ctx, holderListens)
	defer cancel()
	if err := awaitSocket(listening, h.path(name), ended); err != nil {
		return nil, a.holderFailed(h, name, err)
	}
	conn, err := connect(func(ctx context.Context) (net.Conn, error) { return dialOnce(ctx, h.path(name)) })
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	created, err := tcplabv1.NewLabServiceClient(conn).CreateDeployment(ctx, request)
	if err != nil {
		if rpcerr.From(err).Code == codes.Unavailable && isClosed(ended) {
			return nil, a.holderFailed(h, name, err)
		}
		return nil, err
	}
	return created.GetDeployment(), nil
}

// startHolder starts the process, detached from this one but for the lifeline.
func (a *app) startHolder(h *holders, name string, lock *os.File) (_ *exec.Cmd, lifeline *os.File, err error) {
	read, lifeline, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("start the lab's holder: %w", err)
	}
	defer read.Close()
	log, err := os.OpenFile(filepath.Join(h.path(name), holderLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the lab's holder: %w", err), lifeline.Close())
	}
	defer log.Close()
	stateDir, err := a.stateDirectory()
	if err != nil {
		return nil, nil, errors.Join(err, lifeline.Close())
	}
	if err := keepFiles(); err != nil {
		return nil, nil, errors.Join(err, lifeline.Close())
	}
	cmd := exec.Command("/proc/self/exe", "hold", name, "--log-level", a.logLevel, "--log-format", a.logFormat) //nolint:noctx // it outlives this process
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), runtimeDirVar+"="+h.dir, stateDirVar+"="+stateDir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{read, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	inside := !canMakeNamespaces()
	if inside {
		if a.Getenv(insideVar) != "" {
			return nil, nil, errors.Join(noPrivilege(nil), lifeline.Close())
		}
		cmd.SysProcAttr = asRootOfUserNamespace()
		cmd.Env = append(cmd.Env, insideVar+"=1")
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		err = fmt.Errorf("start the lab's holder: %w", err)
		if inside {
			err = noPrivilege(err)
		}
		return nil, nil, errors.Join(err, lifeline.Close())
	}
	return cmd, lifeline, nil
}

// keepFiles keeps from what this process starts all files that it was started with itself: a
// shell's lock, say, is not to be held by what outlives the shell.
func keepFiles() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the open files: %w", err)
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// awaitSocket waits until the holder listens, or has ended.
func awaitSocket(ctx context.Context, dir string, ended <-chan struct{}) error {
	tick := time.NewTicker(redialEvery / 4)
	defer tick.Stop()
	for {
		probe, err := dialOnce(ctx, dir)
		if err == nil {
			return probe.Close()
		}
		select {
		case <-tick.C:
		case <-ended:
			return errors.New("it ended before it served")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// holderFailed says that a lab's holder did not come to work, with its last words.
func (a *app) holderFailed(h *holders, name string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	content, readErr := os.ReadFile(filepath.Join(h.path(name), holderLog))
	words := strings.TrimSpace(string(content))
	if readErr != nil || words == "" {
		words = err.Error()
	}
	return &statusError{status: exitTrial, message: fmt.Sprintf("the process that was to hold lab %s failed: %s", name, words)}
}

// withStandingHere calls fn with the service of the holder of a lab.
func (a *app) withStandingHere(ctx context.Context, name string, fn func(tcplabv1.LabServiceClient) error) error {
	h, err := a.openHolders()
	if err != nil {
		return err
	}
	if err := h.found(name); err != nil {
		return err
	}
	dialing, cancel := context.WithTimeout(ctx, holderListens)
	defer cancel()
	if err := awaitSocket(dialing, h.path(name), nil); err != nil {
		return fmt.Errorf("reach the holder of lab %s: %w", name, err)
	}
	conn, err := connect(func(ctx context.Context) (net.Conn, error) { return dialOnce(ctx, h.path(name)) })
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(tcplabv1.NewLabServiceClient(conn))
}

// standingLabsHere names the labs that stand, in order.
func (a *app) standingLabsHere() ([]string, error) {
	h, err := a.openHolders()
	if err != nil {
		return nil, err
	}
	return h.list()
}

// takeDownHere ends a lab: its holder is asked, and killed where it does not do it in time.
func (a *app) takeDownHere(ctx context.Context, name string) error {
	h, err := a.openHolders()
	if err != nil {
		return err
	}
	if err := h.found(name); err != nil {
		return err
	}
	polite, cancel := context.WithTimeout(ctx, downPolitely)
	defer cancel()
	asked := h.ask(polite, name)
	if gone, err := h.awaitEnd(polite, name); gone || err != nil {
		return err
	}
	a.log.Warn("a lab's holder does not end, and is killed", "lab", name, "error", asked)
	final, cancelFinal := context.WithTimeout(ctx, downAtAll)
	defer cancelFinal()
	if err := h.kill(final, name); err != nil {
		return err
	}
	gone, err := h.awaitEnd(final, name)
	if err == nil && !gone {
		err = fmt.Errorf("the holder of lab %s was killed and is still there", name)
	}
	return err
}

// ask has a holder delete its lab, after which it ends.
func (h *holders) ask(ctx context.Context, name string) error {
	conn, err := connect(func(ctx context.Context) (net.Conn, error) { return dialOnce(ctx, h.path(name)) })
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = tcplabv1.NewLabServiceClient(conn).DeleteDeployment(ctx, &tcplabv1.DeleteDeploymentRequest{Name: name})
	return err
}
