package topology

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Sysctl is a setting of a node's network namespace.
type Sysctl struct {
	Name      string // dotted: "net.ipv4.tcp_rmem"
	Value     string
	Interface string // the node's interface that the setting is about; empty: none
	Default   bool   // tcplab's own; a kernel without it does without
}

// sysctlName is a dotted name of the network's settings. Neither a slash nor an
// empty part is in it, so that it stays below /proc/sys/net.
var sysctlName = regexp.MustCompile(`^net(\.[a-zA-Z0-9_-]+)+$`)

// buffers are TCP's least, first and greatest buffer in bytes (tcp_rmem,
// tcp_wmem). Inherited from the host they differ from machine to machine; with
// the kernel's own first value of 128 KiB the receive window holds back a
// slow start at random moments. 8 MiB and 64 MiB hold nothing back up to
// 2.5 Gbit/s at 50 ms with a queue of as much again.
const buffers = "4096 8388608 67108864"

// hygiene are the settings of every node (kernel: Documentation/networking/ip-sysctl.rst),
// under which a trial depends neither on the trial before nor on the host.
func hygiene() []Sysctl {
	return []Sysctl{
		{Name: "net.ipv4.tcp_no_metrics_save", Value: "1"}, // else a connection starts with the ssthresh of the one before
		{Name: "net.ipv4.tcp_rmem", Value: buffers},
		{Name: "net.ipv4.tcp_wmem", Value: buffers},
		{Name: "net.ipv4.tcp_max_tw_buckets", Value: "262144"}, // sized by memory otherwise: 2048 in a small guest
		{Name: "net.ipv4.tcp_syn_linear_timeouts", Value: "4"}, // the default of kernels from 6.5
		{Name: "net.ipv4.ip_local_port_range", Value: "32768 60999"},
		// IPv4's interface settings are inherited from the host; a strict reverse
		// path refuses what a node with two links rightly receives.
		{Name: "net.ipv4.conf.all.rp_filter", Value: "0"},
		{Name: "net.ipv4.conf.default.rp_filter", Value: "0"},
		// Routes are the plan's.
		{Name: "net.ipv4.conf.all.accept_redirects", Value: "0"},
		{Name: "net.ipv4.conf.default.accept_redirects", Value: "0"},
		{Name: "net.ipv4.conf.all.send_redirects", Value: "0"},
		{Name: "net.ipv4.conf.default.send_redirects", Value: "0"},
		{Name: "net.ipv6.conf.all.accept_redirects", Value: "0"},
		{Name: "net.ipv6.conf.default.accept_redirects", Value: "0"},
		// No packet is sent that the lab did not ask for.
		{Name: "net.ipv6.conf.all.accept_ra", Value: "0"},
		{Name: "net.ipv6.conf.default.accept_ra", Value: "0"},
		{Name: "net.ipv6.conf.all.accept_dad", Value: "0"},
		{Name: "net.ipv6.conf.default.accept_dad", Value: "0"},
		{Name: "net.ipv6.conf.all.router_solicitations", Value: "0"},
		{Name: "net.ipv6.conf.default.router_solicitations", Value: "0"},
	}
}

// forwarding are the settings that make a router of a node.
func forwarding(n *Node) []Sysctl {
	value := "0"
	if n.isRouter() {
		value = "1"
	}
	return []Sysctl{
		{Name: "net.ipv4.ip_forward", Value: value},
		{Name: "net.ipv6.conf.all.forwarding", Value: value},
		{Name: "net.ipv6.conf.default.forwarding", Value: value},
	}
}

// mute are the settings of a switch, which has no address to speak from.
func mute() []Sysctl {
	return []Sysctl{
		{Name: "net.ipv6.conf.all.disable_ipv6", Value: "1"},
		{Name: "net.ipv6.conf.default.disable_ipv6", Value: "1"},
	}
}

// sysctls are the node's defaults, and after them what the lab sets, by name. What the lab sets
// replaces the default.
func sysctls(n *Node, lab map[string]string) ([]Sysctl, error) {
	var defaults []Sysctl
	if n.isSwitch() {
		defaults = mute()
	} else {
		defaults = slices.Concat(forwarding(n), hygiene())
	}
	var all []Sysctl
	for _, s := range defaults {
		if _, replaced := lab[s.Name]; !replaced {
			s.Default = true
			all = append(all, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(lab)) {
		if !sysctlName.MatchString(name) {
			return nil, fmt.Errorf("sysctl %q is refused: only settings of the node's own network are set, named like net.ipv4.tcp_sack", name)
		}
		value := strings.TrimSpace(lab[name])
		if value == "" || strings.ContainsAny(value, "\n\x00") {
			return nil, fmt.Errorf("sysctl %s: %q is no value", name, lab[name])
		}
		all = append(all, Sysctl{Name: name, Value: value, Interface: n.interfaceIn(name)})
	}
	return all, nil
}

// interfaceIn is the node's interface that a setting's name has in it, or empty.
func (n *Node) interfaceIn(name string) string {
	for part := range strings.SplitSeq(name, ".") {
		for _, iface := range n.Interfaces {
			if iface.Name == part {
				return part
			}
		}
	}
	return ""
}
