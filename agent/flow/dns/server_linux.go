package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// Zone is what a name server knows, and how it behaves.
type Zone struct {
	Names  map[string][]netip.Addr // addresses by name, without the dot at its end; case does not matter
	TTL    time.Duration           // of its answers
	Delay  time.Duration           // before each answer
	Lose   []uint32                // queries without an answer, by their number from 1
	Silent bool                    // no query gets one
}

// Server is a name server in a node, until Close.
type Server struct {
	zone  Zone
	names map[string][]netip.Addr // in lower case, with the dot
	lose  map[uint64]bool
	life  context.Context // ends the waits before answers
	end   context.CancelFunc
	parts []*mdns.Server
	runs  sync.WaitGroup

	closing sync.Once
	closed  error

	mu      sync.Mutex
	queries uint64
	lost    uint64
}

// Serve starts a name server on UDP and TCP of the node's every address. The context is for the
// start.
func Serve(ctx context.Context, node *netns.Handle, zone Zone) (*Server, error) {
	return serve(ctx, node, zone, port)
}

func serve(ctx context.Context, node *netns.Handle, zone Zone, port uint16) (*Server, error) {
	s := &Server{zone: zone, names: make(map[string][]netip.Addr, len(zone.Names)), lose: make(map[uint64]bool, len(zone.Lose))}
	for name, addresses := range zone.Names {
		s.names[mdns.CanonicalName(name)] = addresses
	}
	for _, number := range zone.Lose {
		s.lose[uint64(number)] = true
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	var packets net.PacketConn
	var listener net.Listener
	// A server that is killed leaves no connection behind.
	options := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) (err error) {
		if !strings.HasPrefix(network, "tcp") {
			return nil
		}
		controlErr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		})
		return errors.Join(controlErr, err)
	}}
	err := node.Do(func() (err error) {
		at := fmt.Sprintf(":%d", port)
		if packets, err = options.ListenPacket(ctx, "udp", at); err != nil {
			return err
		}
		if listener, err = options.Listen(ctx, "tcp", at); err != nil {
			return errors.Join(err, packets.Close())
		}
		return nil
	})
	if err != nil {
		s.end()
		return nil, fmt.Errorf("open a name server's port in %s: %w", node.Name(), err)
	}
	s.parts = []*mdns.Server{{PacketConn: packets}, {Listener: listener}}
	for _, part := range s.parts {
		started := make(chan struct{})
		part.Handler, part.NotifyStartedFunc = s, func() { close(started) }
		failed := make(chan struct{})
		s.runs.Go(func() {
			// Ends with Close. It fails where its socket does, which nobody else has.
			defer close(failed)
			_ = part.ActivateAndServe()
		})
		select {
		case <-started:
		case <-failed:
		}
	}
	return s, nil
}

// ServeDNS answers one query. It implements the library's Handler.
func (s *Server) ServeDNS(w mdns.ResponseWriter, query *mdns.Msg) {
	if !s.count() {
		return
	}
	timer := time.NewTimer(s.zone.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.life.Done():
		return
	}
	answer := s.answer(query)
	if w.LocalAddr().Network() == "udp" {
		size := mdns.MinMsgSize
		if options := query.IsEdns0(); options != nil {
			size = max(size, int(options.UDPSize()))
		}
		answer.Truncate(size)
	}
	// The one who asked asks again, or has gone.
	_ = w.WriteMsg(answer)
}

// count numbers a query, and says whether it gets an answer.
func (s *Server) count() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries++
	if s.zone.Silent || s.lose[s.queries] {
		s.lost++
		return false
	}
	return true
}

// answer says what the zone knows.
func (s *Server) answer(query *mdns.Msg) *mdns.Msg {
	m := new(mdns.Msg).SetReply(query)
	m.Authoritative = true
	question := query.Question[0] // the library has seen that there is one
	addresses, known := s.names[mdns.CanonicalName(question.Name)]
	if !known {
		m.Rcode = mdns.RcodeNameError
		return m
	}
	header := mdns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: mdns.ClassINET, Ttl: uint32(s.zone.TTL / time.Second)}
	for _, a := range addresses {
		switch {
		case question.Qtype == mdns.TypeA && a.Is4():
			m.Answer = append(m.Answer, &mdns.A{Hdr: header, A: a.AsSlice()})
		case question.Qtype == mdns.TypeAAAA && a.Is6():
			m.Answer = append(m.Answer, &mdns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
	return m
}

// Counts are how many queries were read, and how many of them got no answer.
func (s *Server) Counts() (queries, lost uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries, s.lost
}

// Close ends the server, and returns when nothing of it is left. It may be called again.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.end()
		var errs []error
		for _, part := range s.parts {
			errs = append(errs, part.Shutdown())
		}
		s.runs.Wait()
		s.closed = errors.Join(errs...)
	})
	return s.closed
}
