package tunnel

import (
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// DeadWithin is how soon a connection whose other end has vanished is given up, on both sides. The kernel finds
// it: by its keepalive probes where nothing is sent, by TCP_USER_TIMEOUT where something is (RFC 5482; tcp(7)).
const DeadWithin = 10 * time.Second

// What adds up to less than DeadWithin: silence until the first probe, and then the time without any answer.
const (
	probeAfter  = 2 * time.Second
	probeEvery  = 2 * time.Second
	probes      = 3
	unackedMost = 7 * time.Second
)

// gRPC's own pings find a program that has stopped behind a kernel that still answers. ClientPing is how often
// who calls pings; grpc-go permits no less than 10 s. ServerLeast is what who serves takes for abuse: it must be below, or
// it would hang up on those that keep to the period.
const (
	ClientPing  = 10 * time.Second
	ServerPing  = 10 * time.Second
	ServerLeast = 5 * time.Second
	pingWithin  = 10 * time.Second
)

// KeepAlive is the kernel's probing of a connection, for a net.Dialer or net.ListenConfig, with [Control].
func KeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes}
}

// DialOptions are a client's pings.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithKeepaliveParams(keepalive.ClientParameters{
		Time: ClientPing, Timeout: pingWithin, PermitWithoutStream: true,
	})}
}

// ServerOptions are a server's pings, and what it takes of clients'.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: ServerPing, Timeout: pingWithin}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: ServerLeast, PermitWithoutStream: true}),
	}
}
