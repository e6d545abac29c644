// Package policy reads what the owner of a host permits labs to do with the
// host's own interfaces, and what a controller elsewhere may have it do: /etc/tcplab/agent.yaml, which
// docs/host-interfaces.md and docs/operations.md explain. A host without the file permits what every host permits: interfaces
// that are neither the loopback nor the way to everywhere else; and where it is commanded from elsewhere
// none of its interfaces, and no program.
//
// Nothing that reaches an agent over the network changes a policy or widens it. The
// package refuses keys that it does not know, and a file that others than its
// owner can write.
package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/tcplab/tcplab/agent/link"
)

// DefaultPath is where an agent looks for its policy.
const DefaultPath = "/etc/tcplab/agent.yaml"

// maxSize bounds a policy's file, in bytes.
const maxSize = 64 << 10

// Policy is what a host permits. The zero value permits what a host without a
// file does.
type Policy struct {
	Path         string       // of the file, for errors; empty: there is none
	Loopback     bool         // the loopback interface may be shaped
	DefaultRoute bool         // interfaces with a default route may be shaped
	Only         []string     // the interfaces that may be shaped; empty: all that the above permits
	Never        []link.Match // what is never shaped, beside ssh, the controller's path, DHCP and neighbour discovery

	// Commanded: a controller elsewhere commands the host. What the owner has not permitted is refused then.
	Commanded bool
	Exec      User     // as whom labs may start programs in nodes, where the host is commanded
	Sysctls   []string // those that labs may set in nodes; nil: all that a node has of its own
	MaxSpool  uint64   // of results that wait, in bytes; 0: see Spool
	MaxRate   float64  // of a link's direction in bit/s; 0: any, and none
}

// Interface is what a policy asks of an interface.
type Interface struct {
	Name         string
	Loopback     bool
	DefaultRoute bool // a default route leads through it, of IPv4 or IPv6, in any table
}

// Allow is nil where labs may shape the interface, or says why not and what the
// host's owner could do.
func (p Policy) Allow(i Interface) error {
	where := p.where()
	switch {
	case p.Commanded && len(p.Only) == 0:
		return fmt.Errorf("this host's policy lets labs shape none of its interfaces: its owner can permit %s with interfaces.only: [%s] in %s", i.Name, i.Name, where)
	case len(p.Only) > 0 && !slices.Contains(p.Only, i.Name):
		return fmt.Errorf("this host's policy lets labs shape no interface but %v, and this is %s: its owner can add it to interfaces.only in %s", p.Only, i.Name, where)
	case i.Loopback && !p.Loopback:
		return fmt.Errorf("%s is the loopback interface, by which the host's own programs talk: its owner can permit it with interfaces.loopback: true in %s", i.Name, where)
	case i.DefaultRoute && !p.DefaultRoute:
		return fmt.Errorf("a default route leads through %s, by which the host may be reached: its owner can permit it with interfaces.default_route: true in %s", i.Name, where)
	}
	return nil
}

// document is the file.
type document struct {
	Interfaces struct {
		Loopback     bool     `yaml:"loopback"`
		DefaultRoute bool     `yaml:"default_route"`
		Only         []string `yaml:"only"`
	} `yaml:"interfaces"`
	NeverShape []struct {
		Destination prefix   `yaml:"destination"`
		Protocol    protocol `yaml:"protocol"`
		Port        uint16   `yaml:"port"`
	} `yaml:"never_shape"`
	Exec struct {
		User user `yaml:"user"`
	} `yaml:"exec"`
	Sysctls struct {
		Only []string `yaml:"only"`
	} `yaml:"sysctls"`
	Limits struct {
		Spool size `yaml:"spool"`
		Rate  rate `yaml:"rate"`
	} `yaml:"limits"`
}

// Parse reads a policy. The path is for errors, file:line:column: what.
func Parse(path string, content []byte) (Policy, error) {
	p := Policy{Path: path}
	if len(content) > maxSize {
		return p, fmt.Errorf("%s: it has more than %d bytes", path, maxSize)
	}
	var d document
	decoder := yaml.NewDecoder(bytes.NewReader(content), yaml.Strict())
	if err := decoder.Decode(&d); err != nil && !errors.Is(err, io.EOF) {
		return p, at(path, err)
	}
	var second any
	if err := decoder.Decode(&second); err == nil {
		return p, fmt.Errorf("%s: it has more than one document", path)
	} else if !errors.Is(err, io.EOF) {
		return p, at(path, err)
	}
	p.Loopback, p.DefaultRoute, p.Only = d.Interfaces.Loopback, d.Interfaces.DefaultRoute, d.Interfaces.Only
	p.Exec, p.Sysctls = User(d.Exec.User), d.Sysctls.Only
	p.MaxSpool, p.MaxRate = uint64(d.Limits.Spool), float64(d.Limits.Rate)
	for i, n := range d.NeverShape {
		m := link.Match{Destination: netip.Prefix(n.Destination), Protocol: link.Protocol(n.Protocol), Port: n.Port}
		switch {
		case m == (link.Match{}):
			return p, fmt.Errorf("%s: never_shape, item %d names no traffic: give a destination, a protocol or a port", path, i+1)
		case m.Protocol == link.ICMP && m.Port != 0:
			return p, fmt.Errorf("%s: never_shape, item %d: icmp has no ports", path, i+1)
		}
		p.Never = append(p.Never, m)
	}
	return p, nil
}

// prefix is an address or a prefix of addresses, as written.
type prefix netip.Prefix

// UnmarshalYAML reads the prefix.
func (p *prefix) UnmarshalYAML(n ast.Node) error {
	text, err := scalar(n)
	if err != nil {
		return err
	}
	if address, err := netip.ParseAddr(text); err == nil {
		*p = prefix(netip.PrefixFrom(address.Unmap().WithZone(""), address.Unmap().BitLen()))
		return nil
	}
	parsed, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return refuse(n, "%q is neither an address nor a prefix, such as 192.0.2.7 or 2001:db8::/32", text)
	case parsed.Addr().Is4In6():
		return refuse(n, "%s is IPv4 in IPv6: write it as IPv4", text)
	case parsed != parsed.Masked():
		return refuse(n, "%s has bits behind its prefix: write %s", text, parsed.Masked())
	}
	*p = prefix(parsed)
	return nil
}

// protocol is the name of one.
type protocol link.Protocol

// UnmarshalYAML reads the name.
func (p *protocol) UnmarshalYAML(n ast.Node) error {
	text, err := scalar(n)
	if err != nil {
		return err
	}
	switch name := link.Protocol(text); name {
	case link.TCP, link.UDP, link.ICMP:
		*p = protocol(name)
		return nil
	}
	return refuse(n, "no protocol is called %q: it is %s, %s or %s", text, link.TCP, link.UDP, link.ICMP)
}

// scalar is the text of a value that is no mapping and no list.
func scalar(n ast.Node) (string, error) {
	if s, ok := n.(*ast.StringNode); ok {
		return s.Value, nil
	}
	if _, ok := n.(ast.ScalarNode); ok && n.GetToken() != nil {
		return n.GetToken().Value, nil // what looks like a number
	}
	return "", refuse(n, "want text, not %s", n.Type())
}

// refusal is what is wrong with a value, and where it is.
type refusal struct {
	line, column int
	text         string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d:%d: %s", r.line, r.column, r.text) }

func refuse(n ast.Node, format string, args ...any) error {
	r := &refusal{text: fmt.Sprintf(format, args...)}
	if token := n.GetToken(); token != nil && token.Position != nil {
		r.line, r.column = token.Position.Line, token.Position.Column
	}
	return r
}

// at gives an error its place in the file.
func at(path string, err error) error {
	if own, ok := errors.AsType[*refusal](err); ok {
		return fmt.Errorf("%s:%w", path, own)
	}
	if theirs, ok := errors.AsType[yaml.Error](err); ok && theirs.GetToken() != nil && theirs.GetToken().Position != nil {
		position := theirs.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %s", path, position.Line, position.Column, theirs.GetMessage())
	}
	return fmt.Errorf("%s: %w", path, err)
}
