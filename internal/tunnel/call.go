package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Buffers of one connection for gRPC, in bytes: commands are small, results are not. What is read comes out of TLS in whole
// records (16 KiB, RFC 8446, section 5.1), which keeps them itself: a large buffer behind it would hold them once more, for each host.
const (
	controlBuffer = 4 << 10
	bulkBuffer    = 32 << 10
	readBuffer    = 4 << 10
)

// Call makes a gRPC client of one connection, over which TLS is spoken already. It ends with the connection, and
// never dials another; ended is closed when the connection is.
func Call(conn net.Conn, bulk bool, options ...grpc.DialOption) (client *grpc.ClientConn, ended <-chan struct{}, err error) {
	watched := newWatched(conn)
	buffer := controlBuffer
	if bulk {
		buffer = bulkBuffer
	}
	var once sync.Once
	dial := func(context.Context, string) (net.Conn, error) {
		var first net.Conn
		once.Do(func() { first = watched })
		if first == nil {
			return nil, errors.New("the agent's connection has ended")
		}
		return first, nil
	}
	options = append(append([]grpc.DialOption{
		grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0),
		grpc.WithReadBufferSize(readBuffer), grpc.WithWriteBufferSize(buffer),
		grpc.WithDisableServiceConfig(),
	}, DialOptions()...), options...)
	client, err = grpc.NewClient("passthrough:///agent", options...)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("speak to an agent: %w", err), conn.Close())
	}
	client.Connect()
	return client, watched.ended, nil
}

// watched is a connection whose end can be waited for.
type watched struct {
	net.Conn
	once  sync.Once
	ended chan struct{}
}

func newWatched(conn net.Conn) *watched { return &watched{Conn: conn, ended: make(chan struct{})} }

// Close is net.Conn's.
func (w *watched) Close() error {
	w.once.Do(func() { close(w.ended) })
	return w.Conn.Close()
}
