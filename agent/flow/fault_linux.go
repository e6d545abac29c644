package flow

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// faulty is a server that does something wrong on purpose. It fails nothing by itself: what
// comes of it is the client's to find out.
type faulty struct {
	server
	fault tcplabv1.FlowFault
}

// listen opens the server's port; one that refuses only keeps it from others.
func (s *faulty) listen() (netip.AddrPort, error) {
	if s.fault != tcplabv1.FlowFault_FLOW_FAULT_REFUSE {
		return s.server.listen()
	}
	spec := s.spec()
	fd, err := spec.Reserve()
	if err != nil {
		return netip.AddrPort{}, err
	}
	s.listener = socket.New(fd, s.options)
	return fd.Local(), nil
}

// serve does what is wrong and returns once that is done or the client has ended, which ends
// ctx.
func (s *faulty) serve(ctx context.Context) (m measured) {
	defer s.listener.Close()
	m.address = s.listener.Local()
	if s.fault != tcplabv1.FlowFault_FLOW_FAULT_RESET {
		<-ctx.Done()
		return m
	}
	conn, err := s.accept(ctx)
	if err != nil {
		m.err = err
		return m
	}
	defer conn.Close() // resets
	release := conn.Guard(ctx)
	defer release()
	n, err := conn.DiscardSome(make([]byte, discardSize))
	m.read = uint64(n)
	m.series.Last, _ = conn.Info()
	m.congestion = conn.Congestion()
	if err != nil {
		m.err = Explain(ctx, "reading what is to be reset", err)
	} else if n == 0 {
		m.err = fmt.Errorf("nothing to reset: %w", ErrEnded)
	}
	return m
}
