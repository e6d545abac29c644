package observe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Socket is a TCP socket as sock_diag tells of it.
type Socket struct {
	Local, Remote netip.AddrPort // Remote is of address and port 0 while it listens
	State         uint32         // one of State…
	Cookie        uint64         // the kernel's name for the connection, from its first SYN to the end of TIME_WAIT
	Inode         uint32         // of the descriptor's file; 0: nobody has one, any more or yet
	UID           uint32
	Interface     uint32 // index of the one it is bound to; 0: none
	Mark          uint32 // SO_MARK; 0 without CAP_NET_ADMIN
	Control       string // name of its congestion control; empty in SYN_RECV and TIME_WAIT

	Receiving uint32 // bytes received and not read; of one that listens: connections not accepted
	Sending   uint32 // bytes written and not acknowledged; of one that listens: the most that may wait
	Memory    Memory

	// Info is all zero in SYN_RECV and TIME_WAIT.
	Info       Info
	Congestion Congestion
}

// Memory is what the kernel holds for a socket, in bytes (INET_DIAG_SKMEMINFO).
type Memory struct {
	Received, ReceiveBuffer uint32 // what has come and is not read with its overhead, and the limit
	Sent, SendBuffer        uint32 // what is in transmission with its overhead, and the limit
	Queued                  uint32 // what waits to be sent or acknowledged
	Dropped                 uint32 // packets that the socket dropped
}

// The wire format of sock_diag (include/uapi/linux/inet_diag.h).
const (
	diagRequestSize = 56 // struct inet_diag_req_v2
	compatSize      = 60 // struct inet_diag_req
	diagMessageSize = 72 // struct inet_diag_msg
	identitySize    = 48 // struct inet_diag_sockid

	diagInfo   = 2  // INET_DIAG_INFO
	diagCong   = 4  // INET_DIAG_CONG
	diagMemory = 7  // INET_DIAG_SKMEMINFO
	diagMark   = 15 // INET_DIAG_MARK

	// extensions asks for TCP_INFO, what the congestion control says, its name, and memory.
	extensions = 1<<(diagInfo-1) | 1<<(vegasPart-1) | 1<<(diagCong-1) | 1<<(diagMemory-1)

	ipv4 = 2  // AF_INET
	ipv6 = 10 // AF_INET6

	// newSynReceived is how the kernel numbers SYN_RECV of a connection that comes in
	// (TCP_NEW_SYN_RECV), which is no full socket yet.
	newSynReceived = 12
	// anyState asks for sockets in all states but CLOSE, in which they have no connection.
	anyState = 1<<(newSynReceived+1) - 1 - 1<<StateClose
)

// dumpRequest asks for all sockets of both families: the older form of the request
// alone does so in one pass over the kernel's tables.
func dumpRequest() []byte {
	request := make([]byte, compatSize)
	request[3] = extensions
	binary.NativeEndian.PutUint32(request[52:], anyState)
	return request
}

// socketRequest asks for one socket, as its cookie makes sure.
func socketRequest(s *Socket) []byte {
	request := make([]byte, diagRequestSize)
	request[0] = ipv6
	if s.Local.Addr().Is4() {
		request[0] = ipv4
	}
	request[1], request[2] = 6, extensions // IPPROTO_TCP
	binary.NativeEndian.PutUint32(request[4:], anyState)
	identity := request[8:]
	binary.BigEndian.PutUint16(identity, s.Local.Port())
	binary.BigEndian.PutUint16(identity[2:], s.Remote.Port())
	copy(identity[4:20], s.Local.Addr().AsSlice())
	copy(identity[20:36], s.Remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(identity[36:], s.Interface)
	binary.NativeEndian.PutUint32(identity[40:], uint32(s.Cookie))
	binary.NativeEndian.PutUint32(identity[44:], uint32(s.Cookie>>32))
	return request
}

var errShortDiag = errors.New("sock_diag: the message is cut short")

// parseSocket reads struct inet_diag_msg and the attributes behind it. It takes any bytes.
func parseSocket(raw []byte) (Socket, error) {
	if len(raw) < diagMessageSize {
		return Socket{}, errShortDiag
	}
	identity := raw[4 : 4+identitySize]
	address := func(at int) netip.Addr {
		if raw[0] == ipv4 {
			return netip.AddrFrom4([4]byte(identity[at : at+4]))
		}
		return netip.AddrFrom16([16]byte(identity[at : at+16]))
	}
	if raw[0] != ipv4 && raw[0] != ipv6 {
		return Socket{}, fmt.Errorf("sock_diag: a socket of family %d", raw[0])
	}
	r := layout(raw)
	s := Socket{
		Local:     netip.AddrPortFrom(address(4), binary.BigEndian.Uint16(identity)),
		Remote:    netip.AddrPortFrom(address(20), binary.BigEndian.Uint16(identity[2:])),
		State:     r.u8(1),
		Interface: layout(identity).u32(36),
		Cookie:    uint64(layout(identity).u32(40)) | uint64(layout(identity).u32(44))<<32,
		Receiving: r.u32(56),
		Sending:   r.u32(60),
		UID:       r.u32(64),
		Inode:     r.u32(68),
	}
	if s.State == newSynReceived {
		s.State = StateSynReceived
	}
	return s, s.parseAttributes(raw[diagMessageSize:])
}

// parseAttributes reads the netlink attributes behind a socket; those not known here are left alone.
func (s *Socket) parseAttributes(raw []byte) error {
	const header = 4
	for len(raw) >= header {
		size := int(binary.NativeEndian.Uint16(raw))
		if size < header || size > len(raw) {
			return errShortDiag
		}
		value := raw[header:size]
		switch kind := binary.NativeEndian.Uint16(raw[2:]) & 0x3fff; kind { // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
		case diagInfo:
			s.Info = DecodeInfo(value)
		case diagCong:
			s.Control, _, _ = strings.Cut(string(value), "\x00")
		case diagMemory:
			// SK_MEMINFO_RMEM_ALLOC and so on (include/uapi/linux/sock_diag.h).
			m := layout(value)
			s.Memory = Memory{
				Received: m.u32(0), ReceiveBuffer: m.u32(4), Sent: m.u32(8), SendBuffer: m.u32(12), Queued: m.u32(20), Dropped: m.u32(32),
			}
		case diagMark:
			s.Mark = layout(value).u32(0)
		case uint16(vegasPart), uint16(dctcpPart), uint16(bbrPart):
			s.Congestion = decodeCongestion(part(kind), value)
		}
		raw = raw[min(len(raw), (size+3)&^3):]
	}
	return nil
}
