package trace

import (
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Summary is the connections' reading as the contract sends it, their sums where there are
// several.
func Summary(name string, connections []*Connection) *tcplabv1.CapturedFlow {
	var answers, handshakes []time.Duration
	var client, server End
	for i, c := range connections {
		if i == 0 {
			client, server = c.FromClient, c.FromServer
		} else {
			client.add(&c.FromClient)
			server.add(&c.FromServer)
		}
		if c.SYN.IsZero() {
			continue
		}
		if !c.SYNACK.IsZero() {
			answers = append(answers, c.SYNACK.Sub(c.SYN))
		}
		if !c.Established.IsZero() {
			handshakes = append(handshakes, c.Established.Sub(c.SYN))
		}
	}
	return &tcplabv1.CapturedFlow{
		Name: name, Connections: uint32(len(connections)),
		SynAck: times(answers), Handshake: times(handshakes),
		Client: client.message(), Server: server.message(),
	}
}

// add adds up what can be; the options stay those of the first.
func (e *End) add(other *End) {
	e.Segments += other.Segments
	e.DataSegments += other.DataSegments
	e.Bytes += other.Bytes
	e.BytesRetransmitted += other.BytesRetransmitted
	e.Retransmissions += other.Retransmissions
	e.FastRetransmissions += other.FastRetransmissions
	e.TimeoutRetransmissions += other.TimeoutRetransmissions
	e.OutOfOrder += other.OutOfOrder
	e.Duplicates += other.Duplicates
	e.DuplicateACKs += other.DuplicateACKs
	e.PureACKs += other.PureACKs
	e.PiggybackedACKs += other.PiggybackedACKs
	e.DelayedACKs += other.DelayedACKs
	e.NagleWaits += other.NagleWaits
	e.NagleTime += other.NagleTime
	e.WindowUpdates += other.WindowUpdates
	e.ZeroWindows += other.ZeroWindows
	e.Probes += other.Probes
	e.SYNs += other.SYNs
	e.SYNRetransmissions += other.SYNRetransmissions
	e.FINs += other.FINs
	e.FINRetransmissions += other.FINRetransmissions
	e.FirstFINs += other.FirstFINs
	e.Resets += other.Resets
	e.CongestionEchoes += other.CongestionEchoes
}

func (e *End) message() *tcplabv1.CapturedEnd {
	return &tcplabv1.CapturedEnd{
		Segments: e.Segments, DataSegments: e.DataSegments,
		Bytes: e.Bytes, BytesRetransmitted: e.BytesRetransmitted,
		Retransmissions: e.Retransmissions, FastRetransmissions: e.FastRetransmissions, TimeoutRetransmissions: e.TimeoutRetransmissions,
		OutOfOrder: e.OutOfOrder, Duplicates: e.Duplicates,
		DuplicateAcks: e.DuplicateACKs, PureAcks: e.PureACKs, PiggybackedAcks: e.PiggybackedACKs, DelayedAcks: e.DelayedACKs,
		NagleWaits: e.NagleWaits, NagleTime: durationpb.New(e.NagleTime),
		WindowUpdates: e.WindowUpdates, ZeroWindows: e.ZeroWindows, Probes: e.Probes,
		SynRetransmissions: e.SYNRetransmissions,
		Fins:               e.FINs, FinRetransmissions: e.FINRetransmissions, FirstFins: e.FirstFINs,
		Resets: e.Resets, CongestionEchoes: e.CongestionEchoes,
		Mss: uint32(e.MSS), WindowScale: uint32(e.WindowScale), SackPermitted: e.SACKPermitted, Timestamps: e.Timestamps,
	}
}

func times(all []time.Duration) *tcplabv1.CapturedTimes {
	if len(all) == 0 {
		return &tcplabv1.CapturedTimes{Min: &durationpb.Duration{}, P50: &durationpb.Duration{}, Max: &durationpb.Duration{}}
	}
	slices.Sort(all)
	return &tcplabv1.CapturedTimes{
		Count: uint32(len(all)), Min: durationpb.New(all[0]),
		P50: durationpb.New(all[(len(all)-1)/2]), Max: durationpb.New(all[len(all)-1]),
	}
}

// FlowOf is the flow that a connection belongs to, by its server's address and port, and by its client's
// where several flows have the same; empty: none. A flow's streams and repetitions are asked too: each has
// a port of its own.
func FlowOf(client, server netip.AddrPort, flows []*tcplabv1.FlowResult) string {
	found := ""
	for _, flow := range flows {
		listens, both := has(flow, client, server)
		if both {
			return flow.GetName()
		}
		if listens && found == "" {
			found = flow.GetName()
		}
	}
	return found
}

// has reports whether the flow's server listened at the address, and whether its client connected from
// the other as well.
func has(flow *tcplabv1.FlowResult, client, server netip.AddrPort) (listens, both bool) {
	if at, err := netip.ParseAddrPort(flow.GetServer().GetAddress()); err == nil && at == server {
		from, err := netip.ParseAddrPort(flow.GetClient().GetAddress())
		listens, both = true, err == nil && from == client
	}
	for _, parts := range [][]*tcplabv1.FlowResult{flow.GetStreams(), flow.GetRepetitions()} {
		for _, part := range parts {
			l, b := has(part, client, server)
			listens, both = listens || l, both || b
		}
	}
	return listens, both
}
