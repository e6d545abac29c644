package capture

import (
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// instruction is one of classic BPF (include/uapi/linux/bpf_common.h). Jumps lead on to a label
// further down; an empty one is the next instruction.
type instruction struct {
	label   string
	code    uint16
	k       uint32
	yes, no string
}

// Codes of the instructions that are used.
const (
	loadByte     = 0x30 // ld b [k]
	loadHalf     = 0x28 // ld h [k]
	loadWord     = 0x20 // ld w [k]
	loadHalfX    = 0x48 // ld h [x+k]
	loadIPHeader = 0xb1 // ldx b 4*([k]&0xf)
	jumpEqual    = 0x15 // jeq k
	jumpSet      = 0x45 // jset k
	give         = 0x06 // ret k
)

// interfaceIndex is where the kernel shows a packet's interface (SKF_AD_OFF + SKF_AD_IFINDEX,
// include/uapi/linux/filter.h).
const interfaceIndex = 0xfffff000 + 8

// Where things are in an Ethernet frame, in bytes.
const (
	etherType    = 12
	ipv4Protocol = 14 + 9
	ipv4Fragment = 14 + 6
	ipv6Next     = 14 + 6
	ipv6Ports    = 14 + 40
)

// Protocol numbers (IANA).
const (
	icmpv4 = 1
	tcp    = 6
	udp    = 17
	icmpv6 = 58
)

// Labels of the program's ends.
const (
	taken = "taken"
	left  = "left"
)

// program is the filter in the kernel: the first snap bytes of what matches, but for the
// loopback interface. Of IPv6 it knows packets without extension headers.
func (o Options) program(loopback int) []instruction {
	all := []instruction{
		{code: loadWord, k: interfaceIndex},
		{code: jumpEqual, k: uint32(loopback), yes: left},
	}
	if protocols := o.protocols(); len(protocols) > 0 {
		all = append(all,
			instruction{code: loadHalf, k: etherType},
			instruction{code: jumpEqual, k: 0x0800, no: "IPv6"},
			instruction{code: loadByte, k: ipv4Protocol})
		all = append(all, o.transport("IPv4", protocols, []instruction{
			{code: loadHalf, k: ipv4Fragment},
			{code: jumpSet, k: 0x1fff, yes: left}, // of a fragment; the ports are in the first fragment
			{code: loadIPHeader, k: 14},
			{code: loadHalfX, k: 14},
			{code: jumpEqual, k: uint32(o.Port), yes: taken},
			{code: loadHalfX, k: 16},
		})...)
		all = append(all,
			instruction{label: "IPv6", code: jumpEqual, k: 0x86dd, no: left},
			instruction{code: loadByte, k: ipv6Next})
		all = append(all, o.transport("IPv6", protocols, []instruction{
			{code: loadHalf, k: ipv6Ports},
			{code: jumpEqual, k: uint32(o.Port), yes: taken},
			{code: loadHalf, k: ipv6Ports + 2},
		})...)
	}
	return append(all,
		instruction{label: taken, code: give, k: uint32(o.Snap)},
		instruction{label: left, code: give})
}

// protocols are those that are recorded; none: all.
func (o Options) protocols() []uint32 {
	switch {
	case o.Protocol == tcplabv1.IpProtocol_IP_PROTOCOL_TCP:
		return []uint32{tcp}
	case o.Protocol == tcplabv1.IpProtocol_IP_PROTOCOL_UDP:
		return []uint32{udp}
	case o.Protocol == tcplabv1.IpProtocol_IP_PROTOCOL_ICMP:
		return []uint32{icmpv4, icmpv6}
	case o.Port != 0:
		return []uint32{tcp, udp}
	}
	return nil
}

// transport decides by the protocol that is loaded, and then by the ports, where one is asked: the last
// step of ports loads the second.
func (o Options) transport(version string, protocols []uint32, ports []instruction) []instruction {
	matched := taken
	if o.Port != 0 {
		matched = "ports of " + version
	}
	var all []instruction
	for _, p := range protocols {
		all = append(all, instruction{code: jumpEqual, k: p, yes: matched})
	}
	all[len(all)-1].no = left
	if o.Port != 0 {
		ports[0].label = matched
		all = append(all, ports...)
		all = append(all, instruction{code: jumpEqual, k: uint32(o.Port), yes: taken, no: left})
	}
	return all
}
