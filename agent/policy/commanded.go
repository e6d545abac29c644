package policy

import (
	"fmt"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/tcplab/tcplab/labs/unit"
)

// User is as whom programs run that a lab starts in its nodes.
type User string

// The users that a policy can name. Without one no program is started.
const (
	NoUser User = ""
	Nobody User = "nobody"
	Root   User = "root"
)

// defaultSpool bounds the results that wait on a commanded host whose policy says nothing, in bytes.
const defaultSpool = 4 << 30

// AllowPrograms is nil where labs may start programs as a user, or says why not and what the host's
// owner could do. Where nobody commands the host from elsewhere they may.
func (p Policy) AllowPrograms(as User) error {
	switch {
	case as == NoUser, !p.Commanded, p.Exec == Root, p.Exec == as:
		return nil
	case p.Exec == NoUser:
		return fmt.Errorf("this host's policy lets nobody start programs on it: its owner can permit it with exec.user: %s in %s", as, p.where())
	}
	return fmt.Errorf("this host's policy lets labs start programs as %s, and not as %s: its owner can permit it with exec.user: %s in %s", p.Exec, as, as, p.where())
}

// AllowSysctl is nil where labs may set a node's sysctl.
func (p Policy) AllowSysctl(name string) error {
	if p.Sysctls == nil || slices.Contains(p.Sysctls, name) {
		return nil
	}
	return fmt.Errorf("this host's policy does not let labs set %s: its owner can add it to sysctls.only in %s", name, p.where())
}

// AllowRate is nil where a link may have the rate, in bit/s; 0 is one without a bound.
func (p Policy) AllowRate(rate float64) error {
	if p.MaxRate == 0 || rate > 0 && rate <= p.MaxRate {
		return nil
	}
	has := "has no rate"
	if rate > 0 {
		has = fmt.Sprintf("has a rate of %.0f bit/s", rate)
	}
	return fmt.Errorf("it %s, and this host's policy permits %.0f bit/s: its owner can raise limits.rate in %s", has, p.MaxRate, p.where())
}

// Spool is the most bytes of results that wait on the host; 0: as the disk has room.
func (p Policy) Spool() uint64 {
	if p.MaxSpool == 0 && p.Commanded {
		return defaultSpool
	}
	return p.MaxSpool
}

func (p Policy) where() string {
	if p.Path == "" {
		return DefaultPath
	}
	return p.Path
}

// user is the name of one.
type user User

// UnmarshalYAML reads the name.
func (u *user) UnmarshalYAML(n ast.Node) error {
	text, err := scalar(n)
	if err != nil {
		return err
	}
	switch User(text) {
	case Nobody, Root:
		*u = user(text)
		return nil
	}
	return refuse(n, "programs run as %s or %s, and not as %q", Nobody, Root, text)
}

// quantity is a number that was written with its unit.
type quantity float64

func (q *quantity) read(n ast.Node, want unit.Dimension) error {
	text, err := scalar(n)
	if err != nil {
		return err
	}
	parsed, err := unit.Parse(text)
	if err != nil || parsed.Dimension != want || parsed.Value <= 0 {
		return refuse(n, "%q is not %s, such as %s", text, want, want.Example())
	}
	*q = quantity(parsed.Value)
	return nil
}

// size is in bytes.
type size quantity

// UnmarshalYAML reads the size.
func (s *size) UnmarshalYAML(n ast.Node) error { return (*quantity)(s).read(n, unit.Size) }

// rate is in bit/s.
type rate quantity

// UnmarshalYAML reads the rate.
func (r *rate) UnmarshalYAML(n ast.Node) error { return (*quantity)(r).read(n, unit.Rate) }
