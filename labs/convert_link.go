package labs

import (
	"fmt"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (c *converter) link(s *linkSpec, path string) *tcplabv1.Link {
	c.from(s.At, "%s", path)
	c.from(s.At.get("name"), "%s.name", path)
	c.from(s.At.get("mtu"), "%s.mtu", path)
	c.from(s.At.get("engine"), "%s.engine", path)
	l := &tcplabv1.Link{Name: s.Name, Mtu: c.uint32(s.At.get("mtu"), s.MTU)}
	if s.MTU != nil && *s.MTU == 0 {
		c.add(s.At.get("mtu").at, "", "an MTU of 0 passes nothing")
	}
	if s.Engine != nil {
		l.Engine = tcplabv1.Engine(*s.Engine)
	}
	l.Offload = s.Offload != nil && bool(*s.Offload)
	between := s.At.get("between")
	if between != nil && len(s.Between) != 2 {
		c.add(between.at, "such as [client, server]", "a link is between two nodes, not %d", len(s.Between))
	}
	ends := [2]*tcplabv1.LinkEnd{{}, {}}
	for i, end := range ends {
		field := [2]string{"a", "b"}[i]
		c.from(between.item(i), "%s.%s", path, field)
		if i < len(s.Between) {
			end.Node = s.Between[i]
		}
	}
	l.A, l.B = ends[0], ends[1]
	c.addresses(s, ends, path)
	c.interfaces(s, ends, path)
	if s.Match != nil {
		c.from(s.At.get("match"), "%s.host_match", path)
		l.HostMatch = c.match(s.Match, path+".host_match")
	}
	c.directions(s, l, path)
	return l
}

func (c *converter) addresses(s *linkSpec, ends [2]*tcplabv1.LinkEnd, path string) {
	for _, of := range s.Addresses {
		known := false
		for i, end := range ends {
			if end.GetNode() != of.node {
				continue
			}
			known = true
			end.Addresses = of.addresses
			for j := range of.addresses {
				c.from(of.value.item(j), "%s.%s.addresses[%d]", path, [2]string{"a", "b"}[i], j)
			}
		}
		if !known {
			c.add(of.at, didYouMean(of.node, s.Between), "this link does not join a node %q", of.node)
		}
	}
}

func (c *converter) directions(s *linkSpec, l *tcplabv1.Link, path string) {
	common := shapeKeys{}.with(&s.shapeSpec, s.At)
	if s.RTT != nil {
		if s.Delay != nil {
			c.add(s.At.get("delay").at, "rtt is halved, delay is one way", "give rtt or delay, not both")
		}
		common = common.with(&shapeSpec{Delay: new(*s.RTT / 2)}, nil)
		common.at["delay"] = s.At.get("rtt")
	}
	link := &directionSpec{At: s.At, Paths: s.Paths, Schedule: s.Schedule, Trace: s.Trace}
	for i, own := range []*directionSpec{s.Forward, s.Backward} {
		if own == nil {
			own = &directionSpec{}
		} else if own.Delay != nil && s.RTT != nil {
			c.add(own.At.get("delay").at, "give each direction's delay", "rtt already sets this delay")
		}
		field := path + [2]string{".forward", ".backward"}[i]
		d := c.direction(common, link, own, field)
		if i == 0 {
			l.Forward = d
		} else {
			l.Backward = d
		}
	}
}

// direction is what the link says of both directions, but for what own says
// of this one: each key of the shape, and paths, schedule and trace as wholes.
func (c *converter) direction(common shapeKeys, link, own *directionSpec, path string) *tcplabv1.Direction {
	c.from(own.At, "%s", path)
	d := &tcplabv1.Direction{}
	if own.Seed != nil {
		d.Seed = uint64(*own.Seed)
		c.from(own.At.get("seed"), "%s.seed", path)
	}
	traced := link
	if own.Trace != nil {
		traced = own
	}
	followed := c.trace(traced.Trace)
	keys := common
	if traced == own {
		keys = keys.without(followed.sets()...) // the nearer one replaces them
	}
	keys = keys.with(&own.shapeSpec, own.At)
	c.conflicts(followed, keys, traced.At)
	d.Shape = c.shape(keys, path+".shape")

	scheduled := link
	if own.At.get("schedule") != nil {
		scheduled = own
	}
	branched := link
	if own.At.get("paths") != nil {
		branched = own
	}
	paths := map[string]shapeKeys{"": keys}
	c.from(branched.At.get("paths"), "%s.paths", path)
	for i := range branched.Paths {
		p := &branched.Paths[i]
		paths[p.Name] = shapeKeys{}.with(&p.shapeSpec, p.At)
		d.Paths = append(d.Paths, c.path(p, paths[p.Name], fmt.Sprintf("%s.paths[%d]", path, i)))
	}
	c.from(scheduled.At.get("schedule"), "%s.schedule", path)
	c.schedule(scheduled.Schedule, paths, d, path)
	c.from(traced.At.get("trace"), "%s.trace", path)
	c.follow(followed, d, path)
	return d
}

// pathSpec is a shape for the packets that a match selects.
type pathSpec struct {
	At    *node      `yaml:"-"`
	Name  string     `yaml:"name" jsonschema:"required,pattern=^[a-z][a-z0-9-]*$,maxLength=40" jsonschema_description:"Name of the path: 1 to 40 of a-z, 0-9 and hyphen, starting with a letter."`
	Match *matchSpec `yaml:"match" jsonschema:"required" jsonschema_description:"Which packets: those for which all that is given holds."`
	shapeSpec
}

type matchSpec struct {
	At          *node     `yaml:"-"`
	Destination string    `yaml:"destination" jsonschema_description:"Prefix that the destination address is in (10.1.0.0/16, fd00::/64), or the name of a node, which stands for each of its addresses. Default: any."`
	Protocol    *protocol `yaml:"protocol" jsonschema_description:"tcp, udp or icmp. Default: any."`
	Port        *count    `yaml:"port" jsonschema_description:"Port that the packet is to or from, 1 to 65535, with TCP or UDP. Default: any."`
}

func (c *converter) path(s *pathSpec, keys shapeKeys, path string) *tcplabv1.Path {
	c.from(s.At, "%s", path)
	c.from(s.At.get("name"), "%s.name", path)
	c.from(s.At.get("match"), "%s.match", path)
	return &tcplabv1.Path{Name: s.Name, Match: c.match(s.Match, path+".match"), Shape: c.shape(keys, path+".shape")}
}

// match is which packets; s may be nil.
func (c *converter) match(s *matchSpec, path string) *tcplabv1.Match {
	m := &tcplabv1.Match{}
	if s == nil {
		return m
	}
	for _, key := range []string{"destination", "protocol", "port"} {
		c.from(s.At.get(key), "%s.%s", path, key)
	}
	m.Destination, m.Port = s.Destination, c.uint32(s.At.get("port"), s.Port)
	if s.Protocol != nil {
		m.Protocol = tcplabv1.IpProtocol(*s.Protocol)
	}
	if s.Port != nil && *s.Port == 0 {
		c.add(s.At.get("port").at, "leave the key out for any port", "no packet has the port 0")
	}
	return m
}
