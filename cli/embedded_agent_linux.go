package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/agent"
	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/internal/tunnel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Names in an agent's directory.
const (
	identityDir     = "identity"
	agentLock       = "lock"
	incarnationFile = "incarnation" // how often an agent has started here
)

// home is an agent's directory, which one agent at a time has.
type home struct {
	dir  string
	lock *os.File
}

func (a *app) openHome() (*home, error) {
	dir, err := a.agentDirectory()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the agent's directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, agentLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the agent's directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(rpcerr.New(codes.FailedPrecondition, rpcerr.Busy, "stop it first: systemctl stop tcplab-agent", "another agent has %s", dir), lock.Close())
	}
	return &home{dir: dir, lock: lock}, nil
}

func (h *home) path(elem ...string) string {
	return filepath.Join(append([]string{h.dir}, elem...)...)
}

func (h *home) close() error { return h.lock.Close() }

// start counts an agent's start.
func (h *home) start() (uint64, error) {
	content, err := os.ReadFile(h.path(incarnationFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("count the agent's start: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(content)), 10, 64)
	if err != nil && len(content) > 0 {
		// A power cut may leave it empty or torn; the clock is ahead of any count.
		n = uint64(time.Now().Unix())
	}
	n++
	temporary := h.path("." + incarnationFile)
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("count the agent's start: %w", err)
	}
	_, err = fmt.Fprintln(file, n)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(temporary, h.path(incarnationFile))
	}
	if err != nil {
		return 0, fmt.Errorf("count the agent's start: %w", err)
	}
	return n, nil
}

// membership is who this host is to which controller: as it was, or as it becomes by a token.
func (a *app) membership(ctx context.Context, h *home, f *agentFlags) (*identity.Credential, string, error) {
	address := f.controller
	if address == "" {
		kept, err := os.ReadFile(h.path(controllerFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, "", fmt.Errorf("find the controller: %w", err)
		}
		address = strings.TrimSpace(string(kept))
	}
	credential, err := identity.Load(h.path(identityDir))
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.join == "":
		return nil, "", usageError("this host has not joined a controller: give --controller and --join, with what `tcplab token create` prints there")
	case errors.Is(err, fs.ErrNotExist):
		if credential, err = a.joinAsHost(ctx, h, f, address); err != nil {
			return nil, "", err
		}
	case err != nil:
		return nil, "", err
	case f.join != "":
		return nil, "", usageError("this host has joined already, as %s: leave out --join, or `tcplab agent leave` first", credential.Identity().Name)
	}
	if address == "" {
		return nil, "", usageError("the controller's address is not known: give --controller")
	}
	if err := checkAddress("--controller", address); err != nil {
		return nil, "", err
	}
	return credential, address, os.WriteFile(h.path(controllerFile), []byte(address+"\n"), 0o600)
}

func (a *app) joinAsHost(ctx context.Context, h *home, f *agentFlags, address string) (*identity.Credential, error) {
	credential, who, err := a.join(ctx, address, f.join, f.name)
	if err != nil && f.name == "" && rpcerr.From(err).Code == codes.InvalidArgument {
		// The token is for any name: it was not used, and the machine's will do.
		credential, who, err = a.join(ctx, address, f.join, machineName())
	}
	if err != nil {
		return nil, err
	}
	if who.GetKind() != tcplabv1.PrincipalKind_PRINCIPAL_KIND_AGENT {
		return nil, usageError("the token is a user's, for `tcplab context add`: a host joins with what `tcplab token create` prints")
	}
	if err := identity.Save(h.path(identityDir), credential); err != nil {
		return nil, err
	}
	a.printf("joined %s as host %s\n", address, who.GetName())
	return credential, nil
}

// serveAgent is an agent's whole life.
func (a *app) serveAgent(ctx context.Context, f *agentFlags) (err error) {
	if !canMakeNamespaces() {
		return noPrivilege(nil)
	}
	h, err := a.openHome()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	ctx, _, stop := a.untilInterrupted(ctx)
	defer stop()
	credential, address, err := a.membership(ctx, h, f)
	if err != nil {
		return err
	}
	incarnation, err := h.start()
	if err != nil {
		return err
	}
	management, err := a.management(ctx, address, f.listen)
	if err != nil {
		return err
	}
	log := a.log.With("part", "agent")
	link := &tunnel.Agent{
		Controller: address, Credential: credential, Incarnation: incarnation, Version: version(), Log: log,
		Connected: func(term uint64) {
			a.printf("host %s: in session with %s, term %d\n", credential.Identity().Name, address, term)
		},
	}
	lis := tunnel.NewListener()
	var beside sync.WaitGroup
	defer beside.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	if f.listen == "" {
		beside.Go(func() { link.Run(ctx, lis) })
	} else {
		config := net.ListenConfig{KeepAliveConfig: tunnel.KeepAlive(), Control: tunnel.Control}
		open, err := config.Listen(ctx, "tcp", f.listen)
		if err != nil {
			return usageError("--listen %s: %v", f.listen, err)
		}
		beside.Go(func() { link.Listen(ctx, open, lis) })
	}
	beside.Go(func() {
		identity.KeepFresh(ctx, credential, h.path(identityDir), func(ctx context.Context, request []byte) ([]byte, error) {
			c, err := dialController(address, credential)
			if err != nil {
				return nil, err
			}
			defer c.closeQuietly()
			ctx, cancel := context.WithTimeout(ctx, renewWithin)
			defer cancel()
			renewed, err := c.access.RenewCertificate(ctx, &tcplabv1.RenewCertificateRequest{CertificateRequest: request})
			return renewed.GetCertificate(), err
		}, func(err error) {
			log.Warn("the certificate is not renewed yet", "expires", credential.Leaf().NotAfter, "error", err)
		})
	})
	return agent.Run(ctx, agent.Config{
		SpoolDir: h.path("spool"), HostName: credential.Identity().Name, Version: version(), JournalDir: h.path("journals"),
		PolicyPath: a.Getenv(policyVar), Watchdog: watchdog(), Management: management, Commanded: true,
		Private: []string{h.dir}, Log: log,
	}, lis)
}

// management is the addresses between this host and its controller, which no lab may shape.
func (a *app) management(ctx context.Context, controller, listen string) (all []netip.AddrPort, err error) {
	if listen != "" {
		// Whoever dials it is the controller, from any address: the own one is what tells its traffic.
		controller = listen
	}
	host, port, err := net.SplitHostPort(controller)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("find the controller's addresses, which labs must not shape: %w", err)
	}
	for _, address := range found {
		all = append(all, netip.AddrPortFrom(address.Unmap(), uint16(number)))
	}
	return all, nil
}

// leaveAgent has the controller forget this host, and forgets the controller.
func (a *app) leaveAgent(ctx context.Context, force bool) (err error) {
	h, err := a.openHome()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	credential, err := identity.Load(h.path(identityDir))
	if errors.Is(err, fs.ErrNotExist) {
		return usageError("this host has not joined a controller")
	}
	if err != nil {
		return err
	}
	address, err := os.ReadFile(h.path(controllerFile))
	if err != nil {
		return fmt.Errorf("find the controller: %w", err)
	}
	if err := a.rollback(ctx, h.dir); err != nil {
		return err
	}
	c, err := dialController(strings.TrimSpace(string(address)), credential)
	if err != nil {
		return err
	}
	defer c.closeQuietly()
	polite, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	if _, err := c.access.Leave(polite, &tcplabv1.LeaveRequest{}); err != nil && !force {
		return &statusError{
			status: exitTrial, message: rpcerr.From(err).Message,
			remedy: "--force forgets it here all the same; then have an admin remove it: tcplab hosts remove " + credential.Identity().Name,
		}
	}
	err = errors.Join(identity.Remove(h.path(identityDir)), os.Remove(h.path(controllerFile)))
	a.printf("host %s has left\n", credential.Identity().Name)
	return err
}

// rollbackAgent undoes what an agent left.
func (a *app) rollbackAgent(ctx context.Context) error {
	dir, err := a.agentDirectory()
	if err != nil {
		return err
	}
	return a.rollback(ctx, dir)
}

func (a *app) rollback(ctx context.Context, dir string) error {
	journals := filepath.Join(dir, "journals")
	if _, err := os.Stat(journals); errors.Is(err, fs.ErrNotExist) {
		return nil // no agent has shaped an interface from here
	}
	return agent.Rollback(ctx, agent.Config{JournalDir: journals, Log: a.log.With("part", "agent")})
}
