package theory

import "time"

// TimeWait is how long the end that closed first remembers a connection
// (TCP_TIMEWAIT_LEN in include/net/tcp.h; RFC 9293, 3.6.1, asks for twice the maximum
// segment lifetime, 2 minutes). tcp_fin_timeout does not change it.
const TimeWait = 60 * time.Second

// EphemeralPorts is how many local ports Linux gives out by default
// (ip_local_port_range, 32768 to 60999).
const EphemeralPorts = 28232

// PortLimit is how many connections a second a client can open to one address and port of a server,
// for long, when it closes them first and has so many ports:
//
//	P/60 s
//
// 470 a second with the default range. Valid with tcp_tw_reuse off and tcp_max_tw_buckets ≥ P.
func PortLimit(ports int) float64 { return float64(ports) / TimeWait.Seconds() }
