package netem

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
)

// Attributes of flower's options (include/uapi/linux/pkt_cls.h).
const (
	flowerClass        = 1  // TCA_FLOWER_CLASSID
	flowerEtherType    = 8  // TCA_FLOWER_KEY_ETH_TYPE
	flowerProtocol     = 9  // TCA_FLOWER_KEY_IP_PROTO
	flowerDestination4 = 12 // TCA_FLOWER_KEY_IPV4_DST, and its mask behind it
	flowerDestination6 = 16 // TCA_FLOWER_KEY_IPV6_DST, and its mask behind it
	flowerTCPSource    = 18 // TCA_FLOWER_KEY_TCP_SRC
	flowerTCPDest      = 19 // TCA_FLOWER_KEY_TCP_DST
	flowerUDPSource    = 20 // TCA_FLOWER_KEY_UDP_SRC
	flowerUDPDest      = 21 // TCA_FLOWER_KEY_UDP_DST
	flowerTCPSourceOf  = 35 // TCA_FLOWER_KEY_TCP_SRC_MASK, and the other masks behind it
)

// flower is a filter of cls_flower, which selects packets by their headers, wherever those
// begin: IPv6's extension headers and IPv4's options do not hide what is behind them. Of fragments it knows no port,
// the first one's neither.
type flower struct {
	ipv6        bool
	destination netip.Prefix // not valid: any
	protocol    uint8        // 0: any
	port        uint16       // 0: any
	source      bool         // the port is the source's
	class       uint32
}

// filters are what selects the packets of a match, in both families and with the port at either side.
func filters(m link.Match, class uint32) []flower {
	var all []flower
	for _, ipv6 := range []bool{false, true} {
		if m.Destination.IsValid() && m.Destination.Addr().Is6() != ipv6 {
			continue
		}
		f := flower{ipv6: ipv6, port: m.Port, class: class}
		if m.Destination.Bits() > 0 { // no bits select a family, which the filter does anyway
			f.destination = m.Destination
		}
		var protocols []uint8
		switch {
		case m.Protocol == link.TCP:
			protocols = []uint8{unix.IPPROTO_TCP}
		case m.Protocol == link.UDP:
			protocols = []uint8{unix.IPPROTO_UDP}
		case m.Protocol == link.ICMP && ipv6:
			protocols = []uint8{unix.IPPROTO_ICMPV6}
		case m.Protocol == link.ICMP:
			protocols = []uint8{unix.IPPROTO_ICMP}
		case m.Port != 0: // only these have ports
			protocols = []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}
		default:
			protocols = []uint8{0}
		}
		for _, f.protocol = range protocols {
			for _, f.source = range []bool{false, true} {
				if !f.source || f.port != 0 {
					all = append(all, f)
				}
			}
		}
	}
	return all
}

// matchOf is the match that filters of one class come from.
func matchOf(all []flower) (link.Match, error) {
	if len(all) == 0 {
		return link.Match{}, fmt.Errorf("nothing selects the path's packets")
	}
	f := all[0]
	m := link.Match{Destination: f.destination, Port: f.port}
	protocols, families := map[uint8]bool{}, map[bool]bool{}
	for _, f := range all {
		protocols[f.protocol], families[f.ipv6] = true, true
	}
	if !m.Destination.IsValid() && len(families) == 1 {
		m.Destination = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if f.ipv6 {
			m.Destination = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	switch {
	case protocols[unix.IPPROTO_ICMP] || protocols[unix.IPPROTO_ICMPV6]:
		m.Protocol = link.ICMP
	case protocols[unix.IPPROTO_TCP] && !protocols[unix.IPPROTO_UDP]:
		m.Protocol = link.TCP
	case protocols[unix.IPPROTO_UDP] && !protocols[unix.IPPROTO_TCP]:
		m.Protocol = link.UDP
	}
	// That nothing else selects them, and nothing is missing.
	want := filters(m, f.class)
	found := map[flower]bool{}
	for _, f := range all {
		found[f] = true
	}
	for _, f := range want {
		if !found[f] {
			return m, fmt.Errorf("of the filters for %+v this one is not there: %+v", m, f)
		}
	}
	if len(found) != len(want) {
		return m, fmt.Errorf("%d filters select the packets of %+v, want %d", len(found), m, len(want))
	}
	return m, nil
}

func (f flower) etherType() uint16 {
	if f.ipv6 {
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_IP
}

// preference orders filters: those of the first path come first. A preference belongs to one family.
func preference(path int, ipv6 bool) uint16 {
	if ipv6 {
		return uint16(2*path + 2)
	}
	return uint16(2*path + 1)
}

// to is the request that adds the filter at a classful qdisc.
func (f flower) to(at position, path int) request {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(flowerClass, nl.Uint32Attr(f.class))
	options.AddRtAttr(flowerEtherType, big16(f.etherType()))
	if f.destination.IsValid() {
		key := flowerDestination4
		if f.ipv6 {
			key = flowerDestination6
		}
		address := f.destination.Addr().AsSlice()
		options.AddRtAttr(key, address)
		options.AddRtAttr(key+1, mask(len(address), f.destination.Bits()))
	}
	if f.protocol != 0 {
		options.AddRtAttr(flowerProtocol, []byte{f.protocol})
	}
	if f.port != 0 {
		options.AddRtAttr(f.portKey(), big16(f.port))
		options.AddRtAttr(f.portKey()-flowerTCPSource+flowerTCPSourceOf, big16(math.MaxUint16))
	}
	return request{
		what:    "add the filter flower",
		message: unix.RTM_NEWTFILTER,
		flags:   unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		header: nl.TcMsg{
			Family: nl.FAMILY_ALL, Ifindex: int32(at.device), Parent: at.handle,
			Info: uint32(preference(path, f.ipv6))<<16 | uint32(swap16(f.etherType())),
		},
		attrs: []*nl.RtAttr{nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("flower")), options},
	}
}

func (f flower) portKey() int {
	switch {
	case f.protocol == unix.IPPROTO_TCP && f.source:
		return flowerTCPSource
	case f.protocol == unix.IPPROTO_TCP:
		return flowerTCPDest
	case f.source:
		return flowerUDPSource
	}
	return flowerUDPDest
}

// decodeFlower reads a filter's options; ok is false where the kernel tells of the classifier and no filter.
func decodeFlower(options []byte) (f flower, ok bool, err error) {
	attrs, err := attributes(options)
	if err != nil {
		return f, false, fmt.Errorf("flower's options: %w", err)
	}
	if len(attrs[flowerClass]) < 4 || len(attrs[flowerEtherType]) < 2 {
		return f, false, nil
	}
	f.class = binary.NativeEndian.Uint32(attrs[flowerClass])
	f.ipv6 = binary.BigEndian.Uint16(attrs[flowerEtherType]) == unix.ETH_P_IPV6
	if p := attrs[flowerProtocol]; len(p) > 0 {
		f.protocol = p[0]
	}
	for _, key := range []uint16{flowerDestination4, flowerDestination6} {
		address, valid := netip.AddrFromSlice(attrs[key])
		if !valid {
			continue
		}
		if f.destination, err = address.Prefix(prefixLength(attrs[key+1])); err != nil {
			return f, false, fmt.Errorf("flower's destination: %w", err)
		}
	}
	for key := uint16(flowerTCPSource); key <= flowerUDPDest; key++ {
		if port := attrs[key]; len(port) >= 2 && binary.BigEndian.Uint16(port) != 0 {
			f.port = binary.BigEndian.Uint16(port)
			f.source = key == flowerTCPSource || key == flowerUDPSource
		}
	}
	return f, true, nil
}

func mask(length, bits int) []byte {
	b := make([]byte, length)
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

func prefixLength(mask []byte) int {
	for i := range 8 * len(mask) {
		if mask[i/8]&(0x80>>(i%8)) == 0 {
			return i
		}
	}
	return 8 * len(mask)
}

func big16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// swap16 is a number in network order, kept as the machine keeps numbers.
func swap16(n uint16) uint16 { return binary.NativeEndian.Uint16(big16(n)) }
