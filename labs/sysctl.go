package labs

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// namespacedSysctls says which settings a node has for itself.
//
//go:embed sysctls.txt
var namespacedSysctls string

// namespaced are the names of the settings that a network namespace has for
// itself: "net.ipv4.tcp_sack", and "net.ipv4.conf.*.rp_filter" for those of an
// interface.
func namespaced() []string {
	var names []string
	for line := range strings.Lines(namespacedSysctls) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, "net."+line)
		}
	}
	return names
}

// perInterface splits the name of an interface's setting: its own interface, and the name
// with * in its place. Other names have none.
func perInterface(name string) (iface, general string) {
	parts := strings.SplitN(name, ".", 5)
	if len(parts) == 5 && (parts[2] == "conf" || parts[2] == "neigh") {
		iface = parts[3]
		parts[3] = "*"
		return iface, strings.Join(parts, ".")
	}
	return "", name
}

// sysctlNamed checks that a node has the setting for itself. The names are read for
// the first node that asks.
func (v *validation) sysctlNamed(field string, n *tcplabv1.Node, name string) {
	if v.sysctls == nil {
		v.sysctls = make(map[string]bool)
		for _, known := range namespaced() {
			v.sysctls[known] = true
		}
	}
	iface, general := perInterface(name)
	if !v.sysctls[general] {
		// With the interface that was asked for: "net.ipv4.conf.eth0.rp_filter".
		candidates := namespaced()
		for i, known := range candidates {
			candidates[i] = strings.Replace(known, "*", iface, 1)
		}
		hint := didYouMean(name, candidates)
		if hint == "" {
			hint = "labs/sysctls.txt lists those that it has; all others are the whole host's"
		}
		v.add(field, hint, "no node has a sysctl %q of its own", name)
		return
	}
	if iface == "" || iface == "default" || iface == "lo" || iface == "all" && strings.Contains(general, ".conf.") {
		return
	}
	interfaces := v.interfaces(n.GetName())
	if slices.Contains(interfaces, iface) {
		return
	}
	hint := didYouMean(iface, interfaces)
	if hint == "" {
		hint = "its interfaces are " + strings.Join(interfaces, ", ")
	}
	v.add(field, hint, "%q has no interface %q", n.GetName(), iface)
}

// interfaces are the names of a node's interfaces, those too that [Assign] gives.
func (v *validation) interfaces(node string) []string {
	var names []string
	for _, l := range v.lab.GetLinks() {
		for _, end := range []*tcplabv1.LinkEnd{l.GetA(), l.GetB()} {
			if end.GetNode() != node {
				continue
			}
			name := end.GetInterface()
			if name == "" {
				name = fmt.Sprintf("eth%d", len(names))
			}
			names = append(names, name)
		}
	}
	return names
}
