package labs

import tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"

type observeSpec struct {
	At         *node     `yaml:"-"`
	Sockets    *toggle   `yaml:"sockets" jsonschema_description:"Sample TCP_INFO of every TCP socket of the nodes that is not a flow's own. Default false."`
	States     *toggle   `yaml:"states" jsonschema_description:"Follow the TCP states of the nodes' sockets, for sockets.NODE and flow.NAME.client.state_path. Default false."`
	Queues     *toggle   `yaml:"queues" jsonschema_description:"Look at what waits at each direction of each link, for link.NAME.forward.queue. Default false."`
	Congestion *toggle   `yaml:"congestion" jsonschema_description:"Have each sample of a flow say what its congestion control (bbr, vegas, dctcp) does. Default false: only the last."`
	Interval   *duration `yaml:"interval" jsonschema_description:"How often sockets and queues are looked at, 1ms to 1s. Default: as often as the flows are sampled."`
}

func (c *converter) observe(s *observeSpec, path string) *tcplabv1.Observers {
	c.from(s.At, "%s", path)
	c.from(s.At.get("interval"), "%s.interval", path)
	on := func(t *toggle) bool { return t != nil && bool(*t) }
	return &tcplabv1.Observers{
		Sockets: on(s.Sockets), States: on(s.States), Queues: on(s.Queues), Congestion: on(s.Congestion), Interval: s.Interval.proto(),
	}
}
