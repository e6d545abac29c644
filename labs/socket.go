package labs

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// socketSpec are the socket options of a flow.
type socketSpec struct {
	At            *node          `yaml:"-"`
	NoDelay       *toggle        `yaml:"no_delay" jsonschema_description:"TCP_NODELAY. Default true; false leaves Nagle's algorithm on."`
	Cork          *toggle        `yaml:"cork" jsonschema_description:"TCP_CORK from before the first write of a message until after its last. Default false."`
	QuickAck      *toggle        `yaml:"quick_ack" jsonschema_description:"TCP_QUICKACK before each read: true acknowledges at once, false waits for data to go with. Default: the kernel decides."`
	Congestion    string         `yaml:"congestion" jsonschema_description:"Congestion control (TCP_CONGESTION): reno, cubic, bbr. Default: the kernel's."`
	SendBuffer    *size          `yaml:"send_buffer" jsonschema_description:"SO_SNDBUF in bytes; the kernel doubles it and stops tuning. Default: tuned."`
	ReceiveBuffer *size          `yaml:"receive_buffer" jsonschema_description:"SO_RCVBUF in bytes; the kernel doubles it and stops tuning. Default: tuned."`
	NotsentLowat  *size          `yaml:"notsent_lowat" jsonschema_description:"TCP_NOTSENT_LOWAT: bytes not yet sent from which on a write waits. Default: unlimited."`
	Rcvlowat      *size          `yaml:"rcvlowat" jsonschema_description:"SO_RCVLOWAT: bytes that must have come before a read returns. Default: 1."`
	MSS           *size          `yaml:"mss" jsonschema_description:"TCP_MAXSEG in bytes, 88 to 32767. Default: from the MTU."`
	FastOpen      *toggle        `yaml:"fast_open" jsonschema_description:"TCP Fast Open: a client that has the server's cookie connects with its first write. Default false."`
	FastOpenQueue *count         `yaml:"fast_open_queue" jsonschema_description:"Connections that may wait at the server for their handshake's end, 1 to 65535. With fast_open. Default 128."`
	KeepAlive     *keepAliveSpec `yaml:"keep_alive" jsonschema_description:"Probes of an idle connection (SO_KEEPALIVE). Default: none."`
	UserTimeout   *duration      `yaml:"user_timeout" jsonschema_description:"TCP_USER_TIMEOUT: how long data may stay unacknowledged, 1ms to 24h. Default: the kernel's limits."`
	Linger        *duration      `yaml:"linger" jsonschema_description:"How long the end of a connection may take before it is reset, up to 1h; 0: it ends with a reset. Default: 3s and 8 round trips."`
	DSCP          *codePoint     `yaml:"dscp" jsonschema_description:"Differentiated services code point: 0 to 63, or cs0 to cs7, af11 to af43, ef, le. Default 0."`
	ECN           *toggle        `yaml:"ecn" jsonschema_description:"Whether ECN is negotiated: sets net.ipv4.tcp_ecn of both nodes. Default: as the nodes have it."`
	Mark          *count         `yaml:"mark" jsonschema_description:"SO_MARK: the firewall mark of packets inside the node. Default 0."`
	LocalPorts    *portRange     `yaml:"local_ports" jsonschema_description:"Ports of which the client takes its own, such as 40000-40099. Default: net.ipv4.ip_local_port_range."`
}

type keepAliveSpec struct {
	At       *node     `yaml:"-"`
	Idle     *duration `yaml:"idle" jsonschema_description:"Idle time before the first probe, whole seconds, 1s to 32767s. Default: the node's, 2h."`
	Interval *duration `yaml:"interval" jsonschema_description:"Time between probes, whole seconds, 1s to 32767s. Default: the node's, 75s."`
	Count    *count    `yaml:"count" jsonschema_description:"Probes without an answer that end the connection, 1 to 127. Default: the node's, 9."`
}

// defaultFastOpenQueue is what many servers ask for.
const defaultFastOpenQueue = 128

type (
	codePoint uint32                       // "ef", or 46
	portRange struct{ first, last uint32 } // "40000-40099", or "40000"
)

// codePoints are the names of code points: class selectors (RFC 2474, 4.2.2),
// assured forwarding (RFC 2597, 6), expedited forwarding (RFC 3246), lower
// effort (RFC 8622).
func codePoints() map[string]uint32 {
	names := map[string]uint32{"ef": 46, "le": 1}
	for class := range uint32(8) {
		names[fmt.Sprintf("cs%d", class)] = class << 3
	}
	for class := uint32(1); class <= 4; class++ {
		for drop := uint32(1); drop <= 3; drop++ {
			names[fmt.Sprintf("af%d%d", class, drop)] = class<<3 | drop<<1
		}
	}
	return names
}

const maxCodePoint = 63

func (v *codePoint) read(d *decoder, n *node) {
	const want = "a code point"
	s, ok := d.scalar(n, want)
	if !ok {
		return
	}
	if value, known := codePoints()[s]; known {
		*v = codePoint(value)
		return
	}
	value, err := strconv.ParseUint(s, 10, 8)
	if err != nil || value > maxCodePoint {
		hint := didYouMean(s, slices.Sorted(maps.Keys(codePoints())))
		if hint == "" {
			hint = "0 to 63, cs0 to cs7, af11 to af43, ef or le"
		}
		d.add(n.at, hint, "want %s, not %s", want, n.describe())
		return
	}
	*v = codePoint(value)
}

func (v *portRange) read(d *decoder, n *node) {
	const want = "a range of ports"
	s, ok := d.scalar(n, want)
	if !ok {
		return
	}
	low, high, both := strings.Cut(s, "-")
	if !both {
		high = low
	}
	first, err := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	switch {
	case err != nil || err2 != nil || first == 0:
		d.add(n.at, "such as 40000-40099; ports are 1 to 65535", "want %s, not %s", want, n.describe())
	case last < first:
		d.add(n.at, "", "the range %s ends before it begins", s)
	default:
		*v = portRange{uint32(first), uint32(last)}
	}
}

func (c *converter) socket(s *socketSpec, path string) *tcplabv1.SocketOptions {
	c.from(s.At, "%s", path)
	for _, key := range []string{
		"no_delay", "cork", "quick_ack", "congestion", "send_buffer", "receive_buffer", "notsent_lowat", "rcvlowat", "mss", "fast_open",
		"fast_open_queue", "keep_alive", "user_timeout", "linger", "dscp", "ecn", "mark", "local_ports",
	} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	o := &tcplabv1.SocketOptions{
		NoDelay:       (*bool)(s.NoDelay),
		Cork:          s.Cork != nil && bool(*s.Cork),
		QuickAck:      (*bool)(s.QuickAck),
		Congestion:    s.Congestion,
		SendBuffer:    c.uint32(s.At.get("send_buffer"), s.SendBuffer),
		ReceiveBuffer: c.uint32(s.At.get("receive_buffer"), s.ReceiveBuffer),
		NotsentLowat:  c.uint32(s.At.get("notsent_lowat"), s.NotsentLowat),
		Rcvlowat:      c.uint32(s.At.get("rcvlowat"), s.Rcvlowat),
		Mss:           c.uint32(s.At.get("mss"), s.MSS),
		FastOpen:      s.FastOpen != nil && bool(*s.FastOpen),
		FastOpenQueue: c.uint32(s.At.get("fast_open_queue"), s.FastOpenQueue),
		UserTimeout:   s.UserTimeout.proto(),
		Linger:        s.Linger.proto(),
		Ecn:           (*bool)(s.ECN),
		Mark:          c.uint32(s.At.get("mark"), s.Mark),
	}
	if s.DSCP != nil {
		o.Dscp = uint32(*s.DSCP)
	}
	if s.LocalPorts != nil {
		o.LocalPorts = &tcplabv1.PortRange{First: s.LocalPorts.first, Last: s.LocalPorts.last}
	}
	if k := s.KeepAlive; k != nil {
		path += ".keep_alive"
		for _, key := range []string{"idle", "interval", "count"} {
			c.from(k.At.get(key), "%s.%s", path, key)
		}
		o.KeepAlive = &tcplabv1.KeepAlive{Idle: k.Idle.proto(), Interval: k.Interval.proto(), Count: c.uint32(k.At.get("count"), k.Count)}
	}
	return o
}

// Sysctls that socket options rest on, and their bits (Documentation/networking/ip-sysctl.rst).
const (
	fastOpenSysctl = "net.ipv4.tcp_fastopen"
	fastOpenClient = 1
	fastOpenServer = 2
	ecnSysctl      = "net.ipv4.tcp_ecn"
)

// completeNodes gives the flow's nodes the sysctls that its socket options and programs need, where
// they do not set them.
func completeNodes(lab *tcplabv1.Lab, f *tcplabv1.Flow) {
	needed := make(map[string]string)
	if f.GetSocket().GetFastOpen() {
		needed[fastOpenSysctl] = strconv.Itoa(fastOpenClient | fastOpenServer)
	}
	if s := f.GetSocket(); s != nil && s.Ecn != nil {
		needed[ecnSysctl] = ecnValue(f.GetSocket().GetEcn())
	}
	if f.GetExec() != nil {
		needed[portsSysctl] = "0"
	}
	for _, n := range lab.GetNodes() {
		if !slices.Contains(nodesOf(f), n.GetName()) {
			continue
		}
		for key, value := range needed {
			if _, set := n.GetSysctls()[key]; set {
				continue
			}
			if n.Sysctls == nil {
				n.Sysctls = make(map[string]string)
			}
			n.Sysctls[key] = value
		}
	}
}

func ecnValue(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// The least MSS that Linux takes on a socket is TCP_MIN_MSS (88), from
// include/net/tcp.h; the most is MAX_TCP_WINDOW (32767).
const minMSS, maxMSS = 88, 32767

func (v *validation) socket(field string, f *tcplabv1.Flow) {
	s := f.GetSocket()
	if c := s.GetCongestion(); c != "" && !congestion.MatchString(c) {
		v.add(field+".congestion", "such as reno, cubic or bbr", "%q is not a congestion control's name", c)
	}
	if mss := s.GetMss(); mss != 0 && (mss < minMSS || mss > maxMSS) {
		v.add(field+".mss", "", "an MSS of %d bytes is outside %d to %d", mss, minMSS, maxMSS)
	}
	if s.GetFastOpenQueue() != 0 && !s.GetFastOpen() {
		v.add(field+".fast_open_queue", "add fast_open: true", "there is no queue without fast_open")
	}
	if d := s.GetUserTimeout().AsDuration(); d%time.Millisecond != 0 {
		v.add(field+".user_timeout", "", "%v is not a whole number of milliseconds", d)
	}
	if k := s.GetKeepAlive(); k != nil {
		for _, part := range []struct {
			key   string
			value time.Duration
		}{{"idle", k.GetIdle().AsDuration()}, {"interval", k.GetInterval().AsDuration()}} {
			if part.value%time.Second != 0 {
				v.add(field+".keep_alive."+part.key, "", "%v is not a whole number of seconds", part.value)
			}
		}
	}
	if p := s.GetLocalPorts(); p != nil && p.GetLast() < p.GetFirst() {
		v.add(field+".local_ports", "", "the range %d-%d ends before it begins", p.GetFirst(), p.GetLast())
	}
	v.nodeSettings(field, f)
}

// nodeSettings checks that the nodes have what the flow's options need: what another flow of a
// node, or the node itself, asks for may contradict it.
func (v *validation) nodeSettings(field string, f *tcplabv1.Flow) {
	s := f.GetSocket()
	for _, end := range []struct {
		node string
		bit  int
	}{{f.GetClient(), fastOpenClient}, {f.GetServer(), fastOpenServer}} {
		n, ok := v.nodes[end.node]
		if !ok {
			continue
		}
		if value, set := n.GetSysctls()[fastOpenSysctl]; s.GetFastOpen() && set {
			if bits, err := strconv.ParseInt(value, 0, 32); err != nil || int(bits)&end.bit == 0 {
				v.add(field+".fast_open", fmt.Sprintf("it needs the bit %d; leave the sysctl out for 3", end.bit), "%s sets %s to %s", end.node, fastOpenSysctl, value)
			}
		}
		if value, set := n.GetSysctls()[ecnSysctl]; s != nil && s.Ecn != nil && set && value != ecnValue(s.GetEcn()) {
			v.add(field+".ecn", "ECN is a setting of the whole node: its flows and its sysctls must agree", "%s has %s = %s, not %s", end.node, ecnSysctl, value, ecnValue(s.GetEcn()))
		}
	}
}
