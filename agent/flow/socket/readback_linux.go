package socket

import (
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// ReadOptions are the options in force on a socket of the spec, as FlowEnd.socket of the
// contract has them. An option that the kernel does not have reads as 0.
func (fd FD) ReadOptions(spec *Spec) *tcplabv1.SocketOptions {
	asked := spec.Options
	get := func(level, option int) uint32 {
		value, err := unix.GetsockoptInt(int(fd), level, option)
		if err != nil {
			return 0
		}
		return uint32(value)
	}
	tcp := func(option int) uint32 { return get(unix.IPPROTO_TCP, option) }
	noDelay := tcp(unix.TCP_NODELAY) != 0
	o := &tcplabv1.SocketOptions{
		NoDelay:       &noDelay,
		Cork:          asked.GetCork(),
		Congestion:    fd.Congestion(),
		SendBuffer:    get(unix.SOL_SOCKET, unix.SO_SNDBUF) / 2, // the kernel doubles what is asked (socket(7))
		ReceiveBuffer: get(unix.SOL_SOCKET, unix.SO_RCVBUF) / 2,
		Mss:           tcp(unix.TCP_MAXSEG),
		NotsentLowat:  tcp(unix.TCP_NOTSENT_LOWAT),
		Rcvlowat:      get(unix.SOL_SOCKET, unix.SO_RCVLOWAT),
		FastOpen:      asked.GetFastOpen(),
		FastOpenQueue: asked.GetFastOpenQueue(),
		UserTimeout:   durationpb.New(time.Duration(tcp(unix.TCP_USER_TIMEOUT)) * time.Millisecond),
		Linger:        asked.GetLinger(),
		Mark:          get(unix.SOL_SOCKET, unix.SO_MARK),
		LocalPorts:    asked.GetLocalPorts(),
	}
	if asked != nil {
		o.QuickAck = asked.QuickAck
	}
	// What was negotiated, not what was asked.
	if info, err := observe.ReadInfo(int(fd)); err == nil {
		ecn := info.Options&optionECN != 0
		o.Ecn = &ecn
	}
	if get(unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
		o.KeepAlive = &tcplabv1.KeepAlive{
			Idle:     durationpb.New(time.Duration(tcp(unix.TCP_KEEPIDLE)) * time.Second),
			Interval: durationpb.New(time.Duration(tcp(unix.TCP_KEEPINTVL)) * time.Second),
			Count:    tcp(unix.TCP_KEEPCNT),
		}
	}
	if spec.Addr.Is6() {
		o.Dscp = get(unix.IPPROTO_IPV6, unix.IPV6_TCLASS) >> ecnBits
	} else {
		o.Dscp = get(unix.IPPROTO_IP, unix.IP_TOS) >> ecnBits
	}
	return o
}

// optionECN is TCPI_OPT_ECN of TCP_INFO: ECN was negotiated.
const optionECN = 8
