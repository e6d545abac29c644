// Package host finds out what this host can do for labs: each capability by trying
// the thing itself, in a namespace that ends with the trial.
//
// It refuses to guess from a kernel's version, module list or configuration,
// which all tell less than the attempt. It changes nothing on the host, other
// than that the kernel may load a module that was asked for.
package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Groups of capabilities in a report.
const (
	groupPrivilege = "privilege"
	groupPort      = "port"
	groupQdisc     = "qdisc"
	groupTCP       = "tcp"
	groupClock     = "clock"
)

// Probe tries everything, which takes a fraction of a second. The host's name,
// the agent's version and what concerns link engines are the caller's to fill in.
// The error is ctx's; what cannot be found out is a capability that is missing.
func Probe(ctx context.Context) (*tcplabv1.Host, error) {
	h := &tcplabv1.Host{Kernel: Kernel(), Cpus: uint32(runtime.NumCPU())}
	space, err := netns.New("probe")
	if err != nil {
		h.Capabilities = append(h.Capabilities, noNamespaces(err))
		h.Capabilities = append(h.Capabilities, clocks()...)
		return h, ctx.Err()
	}
	defer space.Close()
	h.Capabilities = append(h.Capabilities, namespaces())
	for _, group := range []func(*netns.Handle) []*tcplabv1.Capability{ports, qdiscs, tcp} {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("find out what this host can do: %w", err)
		}
		h.Capabilities = append(h.Capabilities, group(space)...)
	}
	h.Capabilities = append(h.Capabilities, clocks()...)
	return h, nil
}

// Kernel says what predictions need to know of the kernel. Congestion controls
// are those that a socket in a namespace of its own takes; without the privilege to
// make one, those of this process.
func Kernel() *tcplabv1.Kernel {
	k := &tcplabv1.Kernel{Release: release(), Hz: hz()}
	find := func() error {
		k.CongestionControls = congestionControls()
		k.DefaultCongestionControl = defaultCongestionControl()
		return nil
	}
	space, err := netns.New("probe")
	if err == nil {
		defer space.Close()
		err = space.Do(find)
	}
	if err != nil {
		_ = find() // it returns none
	}
	return k
}

// release is the kernel's as uname prints it.
func release() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// namespaces is the capability without which there is no lab.
func namespaces() *tcplabv1.Capability {
	c := &tcplabv1.Capability{Name: "namespaces", Group: groupPrivilege, State: tcplabv1.CapabilityState_CAPABILITY_STATE_PRESENT}
	if inUserNamespace() {
		c.Detail = "root of a user namespace"
	} else {
		c.Detail = "root"
	}
	return c
}

func noNamespaces(err error) *tcplabv1.Capability {
	c := &tcplabv1.Capability{
		Name: "namespaces", Group: groupPrivilege, State: tcplabv1.CapabilityState_CAPABILITY_STATE_REQUIRED, Detail: err.Error(),
		Remedy: "Run tcplab as root, or allow ordinary users to make user namespaces: " +
			"sysctl -w user.max_user_namespaces=10000 kernel.apparmor_restrict_unprivileged_userns=0 (those of them that this kernel has).",
	}
	if errors.Is(err, unix.ENOSPC) {
		c.Remedy = "Raise the limit on network namespaces: sysctl -w user.max_net_namespaces=10000."
	}
	return c
}

// inUserNamespace reports whether the process is not in the first user
// namespace, whose map of IDs is the identity of all 2^32 - 1 (user_namespaces(7)).
func inUserNamespace() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false // a kernel without user namespaces
	}
	var inside, outside, count uint64
	_, err = fmt.Sscan(string(ids), &inside, &outside, &count)
	return err != nil || inside != 0 || outside != 0 || count != 1<<32-1
}

// attempt is a capability by its trial: present, or missing with the reason and
// what to do about it.
func attempt(group, name, detail string, err error, remedy string) *tcplabv1.Capability {
	c := &tcplabv1.Capability{Name: name, Group: group, State: tcplabv1.CapabilityState_CAPABILITY_STATE_PRESENT, Detail: detail}
	if err != nil {
		c.State, c.Detail, c.Remedy = tcplabv1.CapabilityState_CAPABILITY_STATE_MISSING, err.Error(), remedy
	}
	return c
}
