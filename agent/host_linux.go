package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/agent/link/nic"
	"github.com/tcplab/tcplab/agent/policy"
	"github.com/tcplab/tcplab/internal/netns"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// ownHost is the host's own network stack as labs may shape it, or why they may
// not.
type ownHost struct {
	policy policy.Policy
	wrong  error // with the policy: then nothing is permitted
	host   *nic.Host
	err    error
}

// newOwnHost undoes what an agent that died has left at the host's interfaces, and
// reads the host's policy.
func newOwnHost(ctx context.Context, cfg Config) *ownHost {
	options := nic.Options{
		Journals: cfg.JournalDir,
		Watchdog: guard.WatchdogOptions{Command: cfg.Watchdog, Stderr: os.Stderr},
		Step:     cfg.step,
		Log:      cfg.Log,
	}
	if options.Journals == "" {
		options.Journals = filepath.Join(filepath.Dir(cfg.SpoolDir), "journals")
	}
	for _, m := range cfg.Management {
		address := m.Addr().Unmap()
		options.Management = append(options.Management, link.Match{
			Destination: netip.PrefixFrom(address, address.BitLen()), Protocol: link.TCP, Port: m.Port(),
		})
	}
	path := cfg.PolicyPath
	if path == "" {
		path = policy.DefaultPath
	}
	var policyErr error
	options.Policy, policyErr = policy.Load(path)
	options.Policy.Commanded = cfg.Commanded
	host, err := nic.NewHost(options)
	if err != nil {
		return &ownHost{policy: options.Policy, wrong: policyErr, err: errors.Join(policyErr, err)}
	}
	if err := host.Recover(ctx); err != nil {
		cfg.Log.Error("an agent that died has changed an interface of this host", "error", err)
	}
	return &ownHost{policy: options.Policy, wrong: policyErr, host: host, err: policyErr}
}

// Rollback undoes what an agent that died has left at the host's interfaces. One that lives is
// left alone. Without anything to undo it does nothing.
func Rollback(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	host, err := nic.NewHost(nic.Options{Journals: cfg.JournalDir, Log: cfg.Log})
	if err != nil {
		return err
	}
	return errors.Join(host.Recover(ctx), host.Close())
}

// get is the host, or why its interfaces are not shaped.
func (o *ownHost) get() (*nic.Host, error) { return o.host, o.err }

// capability is what a report about this host says of shaping its interfaces.
func (o *ownHost) capability() *tcplabv1.Capability {
	c := &tcplabv1.Capability{Name: "own interfaces", Group: "port", State: tcplabv1.CapabilityState_CAPABILITY_STATE_PRESENT}
	host, err := o.get()
	var hooks nic.Hooks
	if err == nil {
		hooks, err = host.Capable()
	}
	switch {
	case err != nil:
		c.State, c.Detail = tcplabv1.CapabilityState_CAPABILITY_STATE_MISSING, err.Error()
		c.Remedy = "Correct the policy, /etc/tcplab/agent.yaml (docs/host-interfaces.md)."
		if own, ok := errors.AsType[*rpcerr.Error](err); ok && own.Remedy != "" {
			c.Remedy = own.Remedy
		}
	case hooks == nic.TCX:
		c.Detail = "labs can shape the host's own, by TCX: the kernel undoes it when the agent ends"
	default:
		c.Detail = "labs can shape the host's own, in a clsact qdisc: a watchdog undoes it when the agent ends"
	}
	return c
}

func (o *ownHost) close() error {
	if o.host == nil {
		return nil
	}
	return o.host.Close()
}

// Watch is the work of the watchdog that Config.Watchdog starts: arguments are its
// last two. It waits until the agent has ended, undoes what that left at the host's
// interfaces, and returns.
func Watch(arguments []string, log *slog.Logger) error {
	space, err := netns.Current()
	if err != nil {
		return err
	}
	defer space.Close()
	return nic.Watch(arguments, space, log)
}
