package labs

import (
	"fmt"
	"slices"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type captureSpec struct {
	At       *node     `yaml:"-"`
	Nodes    []string  `yaml:"nodes" jsonschema_description:"The nodes at whose interfaces packets are recorded. client[1-3] is three. Default: the ends of the experiment's flows."`
	Snap     *size     `yaml:"snap" jsonschema_description:"Bytes kept of each packet, 64B to 65535B. Default 128B: all headers."`
	Limit    *size     `yaml:"limit" jsonschema_description:"Bytes of one node's file, 4KiB to 16GiB; what no longer fits is counted. Default 64MiB."`
	Packets  *count    `yaml:"packets" jsonschema_description:"Packets of one node's file, at least 1; what is beyond is counted. Default: as many as fit."`
	Protocol *protocol `yaml:"protocol" jsonschema_description:"Only packets of this protocol: tcp, udp or icmp. Default: all."`
	Port     *count    `yaml:"port" jsonschema_description:"Only TCP and UDP packets from or to this port, 1 to 65535. Default: all."`
}

// Defaults of a capture, and its least and greatest values.
const (
	DefaultCaptureSnap  = 128      // bytes of each packet
	DefaultCaptureLimit = 64 << 20 // bytes of a node's file
	minCaptureSnap      = 64
	maxCaptureSnap      = 65535
	minCaptureLimit     = 4 << 10
	maxCaptureLimit     = 16 << 30
)

func (c *converter) capture(s *captureSpec, path string) *tcplabv1.Capture {
	if s == nil {
		return nil
	}
	c.from(s.At, "%s", path)
	for key, field := range map[string]string{"snap": "snap_bytes", "limit": "limit_bytes", "packets": "limit_packets", "protocol": "protocol", "port": "port", "nodes": "nodes"} {
		c.from(s.At.get(key), "%s.%s", path, field)
	}
	p := &tcplabv1.Capture{SnapBytes: c.uint32(s.At.get("snap"), s.Snap), Port: c.uint32(s.At.get("port"), s.Port)}
	if s.Limit != nil {
		p.LimitBytes = uint64(*s.Limit)
	}
	if s.Packets != nil {
		p.LimitPackets = uint64(*s.Packets)
	}
	if s.Protocol != nil {
		p.Protocol = tcplabv1.IpProtocol(*s.Protocol)
	}
	// In the contract 0 is the default.
	for _, given := range []struct {
		key  string
		zero bool
	}{
		{"snap", s.Snap != nil && *s.Snap == 0},
		{"limit", s.Limit != nil && *s.Limit == 0},
		{"packets", s.Packets != nil && *s.Packets == 0},
		{"port", s.Port != nil && *s.Port == 0},
	} {
		if given.zero {
			c.add(s.At.get(given.key).at, "leave the key out for the default", "with %s: 0 nothing is recorded", given.key)
		}
	}
	nodes := s.At.get("nodes")
	for i, name := range s.Nodes {
		at := nodes
		if nodes.kind == sequence {
			at = nodes.item(i)
		}
		for _, one := range c.namesOf(at.at, name) {
			c.from(at, "%s.nodes[%d]", path, len(p.Nodes))
			p.Nodes = append(p.Nodes, one.name)
		}
	}
	return p
}

// completeCapture gives the experiment's capture its nodes and bounds, where it has none.
func completeCapture(lab *tcplabv1.Lab, e *tcplabv1.Experiment) {
	c := e.GetCapture()
	if c == nil {
		return
	}
	if c.SnapBytes == 0 {
		c.SnapBytes = DefaultCaptureSnap
	}
	if c.LimitBytes == 0 {
		c.LimitBytes = DefaultCaptureLimit
	}
	if len(c.GetNodes()) > 0 {
		return
	}
	for _, n := range lab.GetNodes() {
		if slices.ContainsFunc(e.GetFlows(), func(f *tcplabv1.Flow) bool {
			return f.GetClient() == n.GetName() || f.GetServer() == n.GetName()
		}) {
			c.Nodes = append(c.Nodes, n.GetName())
		}
	}
}

// capture checks that there is something to be recorded.
func (v *validation) capture(field string, c *tcplabv1.Capture) {
	if c == nil {
		return
	}
	for i, name := range c.GetNodes() {
		field := fmt.Sprintf("%s.nodes[%d]", field, i)
		switch {
		case !v.known(field, name):
		case !isOwn(v.nodes[name]):
			v.add(field, "record it with tcpdump", "%q is no network of the lab's own: what else the host does would be recorded too", name)
		case len(v.interfaces(name)) == 0:
			v.add(field, "", "%q has no link, and so no interface", name)
		case slices.Index(c.GetNodes(), name) < i:
			v.add(field, "", "the node %q is there twice", name)
		}
	}
	for _, b := range []struct {
		name             string
		value, low, high uint64
	}{
		{"snap_bytes", uint64(c.GetSnapBytes()), minCaptureSnap, maxCaptureSnap},
		{"limit_bytes", c.GetLimitBytes(), minCaptureLimit, maxCaptureLimit},
		{"port", uint64(c.GetPort()), 1, 65535},
	} {
		if b.value != 0 && (b.value < b.low || b.value > b.high) {
			v.add(field+"."+b.name, "", "%s is %d; want %d to %d", strings.TrimSuffix(b.name, "_bytes"), b.value, b.low, b.high)
		}
	}
	if c.GetPort() != 0 && c.GetProtocol() == tcplabv1.IpProtocol_IP_PROTOCOL_ICMP {
		v.add(field+".port", "leave the port out", "ICMP has no ports")
	}
}
