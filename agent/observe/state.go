package observe

import (
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// States of a socket (include/net/tcp_states.h).
const (
	StateEstablished = 1
	StateSynSent     = 2
	StateSynReceived = 3
	StateFinWait1    = 4
	StateFinWait2    = 5
	StateTimeWait    = 6
	StateClose       = 7
	StateCloseWait   = 8
	StateLastAck     = 9
	StateListen      = 10
	StateClosing     = 11
)

// stateName is a state as people write it: "TIME_WAIT".
func stateName(state uint32) string {
	return strings.TrimPrefix(tcplabv1.TcpState(state).String(), "TCP_STATE_")
}
