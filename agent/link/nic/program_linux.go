package nic

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/cilium/ebpf/asm"

	"github.com/tcplab/tcplab/agent/link"
)

// What a program answers (include/uapi/linux/pkt_cls.h, bpf.h): the same numbers
// by TCX and in a clsact qdisc.
const (
	answerNext = -1 // TCX_NEXT, TC_ACT_UNSPEC: as if the program were not there
	answerDrop = 2  // TCX_DROP, TC_ACT_SHOT
)

// redirectIngress is BPF_F_INGRESS: the packet is received by the device, not sent.
const redirectIngress = 1

// packetHost is PACKET_HOST (include/uapi/linux/if_packet.h).
const packetHost = 0

// passed is the mark of a packet that has passed the link on its way in, from
// the link's near end to the interface, where the mark is taken off. Whoever comes from the wire has none.
const passed = 0x7463706c // "tcpl"

// Fields of struct __sk_buff (include/uapi/linux/bpf.h).
const (
	skbMark           = 8
	skbVLANPresent    = 20
	skbIngressIfindex = 36
)

// Where the stack of a program keeps what it has read.
const (
	stackEthernet = -16 // 14 bytes
	stackIP       = -64 // 40 bytes
	stackPorts    = -72 // 4 bytes
	stackKey      = -76 // 4 bytes
)

// Offsets in headers.
const (
	ethernetLen  = 14
	ethernetType = 12

	ipv4Len      = 20
	ipv4Fragment = 6
	ipv4Protocol = 9
	ipv4Source   = 12
	ipv4Dest     = 16

	ipv6Len    = 40
	ipv6Next   = 6
	ipv6Source = 8
	ipv6Dest   = 24
)

// side is which of a packet's addresses is the other end's: its destination
// where the host sends, its source where it receives.
type side bool

const (
	sent     side = false
	received side = true
)

// assembler strings instructions together; a label stands for the next one.
type assembler struct {
	code   asm.Instructions
	label  string
	blocks int
}

func (a *assembler) add(instructions ...asm.Instruction) {
	for _, i := range instructions {
		if a.label != "" {
			i = i.WithSymbol(a.label)
			a.label = ""
		}
		a.code = append(a.code, i)
	}
}

// here names the next instruction, which no name may have yet.
func (a *assembler) here(label string) {
	if a.label != "" {
		// Two names for one place: the first leads to the second.
		a.add(asm.Ja.Label(label))
	}
	a.label = label
}

// selection says which packets are diverted.
type selection struct {
	match link.Match
	kept  []link.Match
	// loopback: each packet is sent and received, and both its ends are the host's. So that
	// it is shaped once, the match's port is the one that is sent to, or received from.
	loopback bool
}

// enter is the program at the interface: what the match selects, and has not passed the link
// yet, goes into the link's device, as long as the switch is on. What has passed
// already comes, when sent, from the device back; when received, with the mark.
func enter(s side, w selection, into, back int, onMap int) asm.Instructions {
	a := &assembler{}
	a.add(asm.Mov.Reg(asm.R6, asm.R1))
	if s == sent {
		a.add(
			asm.LoadMem(asm.R2, asm.R6, skbIngressIfindex, asm.Word),
			asm.JEq.Imm32(asm.R2, int32(back), "next"),
		)
	} else {
		a.add(
			asm.LoadMem(asm.R2, asm.R6, skbMark, asm.Word),
			asm.JNE.Imm32(asm.R2, passed, "fresh"),
			asm.Mov.Imm(asm.R2, 0),
			asm.StoreMem(asm.R6, skbMark, asm.R2, asm.Word),
			asm.Ja.Label("next"),
		)
		a.here("fresh")
	}
	a.add(
		asm.StoreImm(asm.R10, stackKey, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, stackKey),
		asm.LoadMapPtr(asm.R1, onMap),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.LoadMem(asm.R0, asm.R0, 0, asm.Word),
		asm.JEq.Imm32(asm.R0, 0, "next"),
	)
	a.classify(s, w)
	a.here("yes")
	a.redirect(into, 0)
	a.here("next")
	a.answer(answerNext)
	return a.code
}

// leave is the program at the link's other end: what has come through goes on by the
// interface. The link carries nothing but what was diverted into it; should anybody
// send on its devices what no program would have diverted, it ends here.
func leave(s side, to int) asm.Instructions {
	a := &assembler{}
	a.add(asm.Mov.Reg(asm.R6, asm.R1))
	a.ethernet("drop")
	a.add(
		asm.JEq.Imm32(asm.R1, etherTypeIPv4, "yes"),
		asm.JNE.Imm32(asm.R1, etherTypeIPv6, "drop"),
	)
	a.here("yes")
	if s == received {
		a.add(
			asm.LoadImm(asm.R2, passed, asm.DWord),
			asm.StoreMem(asm.R6, skbMark, asm.R2, asm.Word),
		)
		a.redirect(to, redirectIngress)
	} else {
		// To the link's device it was a frame for another station, and the loopback device
		// does not look again (drivers/net/loopback.c, loopback_xmit).
		a.add(asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, packetHost), asm.FnSkbChangeType.Call())
		a.redirect(to, 0)
	}
	a.here("drop")
	a.answer(answerDrop)
	return a.code
}

// Ethernet's types (IEEE 802 numbers).
const (
	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
)

// ethernet reads the header and leaves the type in R1. A frame to a group, a
// broadcast too, goes to no.
func (a *assembler) ethernet(no string) {
	a.load(0, nil, stackEthernet, ethernetLen, no)
	a.add(
		asm.LoadMem(asm.R1, asm.R10, stackEthernet, asm.Byte),
		asm.And.Imm(asm.R1, 1),
		asm.JNE.Imm(asm.R1, 0, no),
		asm.LoadMem(asm.R1, asm.R10, stackEthernet+ethernetType, asm.Half),
		asm.HostTo(asm.BE, asm.R1, asm.Half),
	)
}

// load reads bytes of the packet, from an offset or a register with it, to the
// stack. A packet that is too short goes to no.
func (a *assembler) load(offset int32, from *asm.Register, to int16, length int32, no string) {
	a.add(asm.Mov.Reg(asm.R1, asm.R6))
	if from != nil {
		a.add(asm.Mov.Reg(asm.R2, *from))
	} else {
		a.add(asm.Mov.Imm(asm.R2, offset))
	}
	a.add(
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, int32(to)),
		asm.Mov.Imm(asm.R4, length),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, no),
	)
}

// classify leads a packet that is diverted to "yes", and any other to "next".
func (a *assembler) classify(s side, w selection) {
	a.add(
		asm.LoadMem(asm.R1, asm.R6, skbVLANPresent, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "next"),
	)
	a.ethernet("next")
	a.add(
		asm.JEq.Imm32(asm.R1, etherTypeIPv4, "ipv4"),
		asm.JEq.Imm32(asm.R1, etherTypeIPv6, "ipv6"),
		asm.Ja.Label("next"),
	)
	a.here("ipv4")
	a.load(ethernetLen, nil, stackIP, ipv4Len, "next")
	address := int16(ipv4Dest)
	if s == received {
		address = ipv4Source
	}
	length := asm.R9
	a.add(
		asm.LoadMem(asm.R1, asm.R10, stackIP+ipv4Fragment, asm.Half),
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.And.Imm(asm.R1, 0x3fff), // more fragments, and the offset of this one
		asm.JNE.Imm(asm.R1, 0, "next"),
		asm.LoadMem(asm.R7, asm.R10, stackIP+ipv4Protocol, asm.Byte),
		asm.LoadMem(length, asm.R10, stackIP, asm.Byte),
		asm.And.Imm(length, 0x0f),
		asm.LSh.Imm(length, 2),
		asm.Add.Imm(length, ethernetLen),
	)
	a.ports(length, "4")
	a.decide(s, stackIP+address, w, false)

	a.here("ipv6")
	a.load(ethernetLen, nil, stackIP, ipv6Len, "next")
	address = ipv6Dest
	if s == received {
		address = ipv6Source
	}
	a.add(
		asm.LoadMem(asm.R7, asm.R10, stackIP+ipv6Next, asm.Byte),
		asm.Mov.Imm(length, ethernetLen+ipv6Len),
	)
	// Extension headers hide what follows (IANA, IPv6 Extension Header Types).
	for _, extension := range []int32{0, 43, 44, 50, 51, 60, 135, 139, 140, 253, 254} {
		a.add(asm.JEq.Imm(asm.R7, extension, "next"))
	}
	a.add(asm.JNE.Imm(asm.R7, protoICMPv6, "transport"))
	a.load(0, &length, stackPorts, 1, "next")
	// Multicast listener and neighbour discovery (RFC 2710, 3810, 4861).
	a.add(
		asm.LoadMem(asm.R1, asm.R10, stackPorts, asm.Byte),
		asm.JEq.Imm(asm.R1, 143, "next"),
		asm.JLT.Imm(asm.R1, 130, "transport"),
		asm.JLE.Imm(asm.R1, 137, "next"),
	)
	a.here("transport")
	a.ports(length, "6")
	a.decide(s, stackIP+address, w, true)
}

// ports puts source and destination port into R8 and R9, or 0, of a packet whose
// transport header starts where the register says.
func (a *assembler) ports(at asm.Register, suffix string) {
	a.add(
		asm.JEq.Imm(asm.R7, protoTCP, "ports"+suffix),
		asm.JEq.Imm(asm.R7, protoUDP, "ports"+suffix),
		asm.Mov.Imm(asm.R8, 0),
		asm.Mov.Imm(asm.R9, 0),
		asm.Ja.Label("decide"+suffix),
	)
	a.here("ports" + suffix)
	a.load(0, &at, stackPorts, 4, "next")
	a.add(
		asm.LoadMem(asm.R8, asm.R10, stackPorts, asm.Half),
		asm.HostTo(asm.BE, asm.R8, asm.Half),
		asm.LoadMem(asm.R9, asm.R10, stackPorts+2, asm.Half),
		asm.HostTo(asm.BE, asm.R9, asm.Half),
	)
	a.here("decide" + suffix)
}

// decide leads to "next" what is kept or not selected, and to "yes" the rest.
func (a *assembler) decide(s side, address int16, w selection, v6 bool) {
	// The address, in words of 32 bits, from R1 on.
	words := 1
	if v6 {
		words = 4
	}
	for i := range words {
		register := asm.R1 + asm.Register(i)
		a.add(
			asm.LoadMem(register, asm.R10, address+int16(4*i), asm.Word),
			asm.HostTo(asm.BE, register, asm.Word),
		)
	}
	for _, k := range slices.Concat(alwaysKept(), w.kept) {
		if !ofFamily(k.Destination, v6) {
			continue
		}
		if everything(k) {
			a.add(asm.Ja.Label("next"))
			return
		}
		a.blocks++
		other := fmt.Sprintf("not%d", a.blocks)
		a.compare(k, v6, other)
		a.add(asm.Ja.Label("next"))
		a.here(other)
	}
	m := w.match
	if !ofFamily(m.Destination, v6) {
		a.add(asm.Ja.Label("next"))
		return
	}
	if w.loopback {
		port := asm.R9
		if s == received {
			port = asm.R8
		}
		a.add(asm.JNE.Imm(port, int32(m.Port), "next"))
	}
	a.compare(m, v6, "next")
	a.add(asm.Ja.Label("yes"))
}

// compare leads a packet that the match does not select to the label.
func (a *assembler) compare(m link.Match, v6 bool, no string) {
	if p := number(m.Protocol, v6); p != 0 {
		a.add(asm.JNE.Imm(asm.R7, p, no))
	}
	if m.Destination.IsValid() {
		prefix := m.Destination.Masked().Addr().AsSlice()
		for i := 0; 4*i < len(prefix); i++ {
			bits := min(32, m.Destination.Bits()-32*i)
			if bits <= 0 {
				break
			}
			mask := uint32(math.MaxUint32) << (32 - bits)
			want := binary.BigEndian.Uint32(prefix[4*i:])
			a.add(
				asm.Mov.Reg32(asm.R0, asm.R1+asm.Register(i)),
				asm.And.Imm32(asm.R0, int32(mask)),
				asm.JNE.Imm32(asm.R0, int32(want), no),
			)
		}
	}
	if m.Port != 0 {
		a.blocks++
		yes := fmt.Sprintf("port%d", a.blocks)
		a.add(
			asm.JEq.Imm(asm.R8, int32(m.Port), yes),
			asm.JNE.Imm(asm.R9, int32(m.Port), no),
		)
		a.here(yes)
	}
}

// redirect ends the program with the packet at the device.
func (a *assembler) redirect(device int, flags int32) {
	a.add(
		asm.Mov.Imm(asm.R1, int32(device)),
		asm.Mov.Imm(asm.R2, flags),
		asm.FnRedirect.Call(),
		asm.Return(),
	)
}

// answer ends the program.
func (a *assembler) answer(code int32) {
	a.add(asm.Mov.Imm32(asm.R0, code), asm.Return())
}
