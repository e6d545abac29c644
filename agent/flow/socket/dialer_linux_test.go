package socket_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// P ports give P connections to one server, and then EADDRNOTAVAIL: by the
// kernel's choice, and where it has none port by port.
func TestLocalPortsAreAllThereAre(t *testing.T) {
	for _, chosen := range []bool{true, false} {
		for _, last := range []uint32{40_001, 40_002, 40_003, 40_008} {
			t.Run(fmt.Sprintf("to %d chosen %v", last, chosen), func(t *testing.T) {
				const first = 40_001
				client, server := specs(t, &tcplabv1.SocketOptions{LocalPorts: &tcplabv1.PortRange{First: first, Last: last}})
				listener := listen(t, server)
				d := socket.Dialer{Spec: client}
				seen := make(map[uint16]*socket.Socket)
				dial := func() error {
					return d.Dial(func(port uint16) error {
						if port == 0 && !chosen {
							return socket.ErrPortByPort
						}
						return connect(t, client, port, listener.Local(), seen)
					})
				}
				for range last - first + 1 {
					if err := dial(); err != nil {
						t.Fatalf("after %d: %v", len(seen), err)
					}
				}
				for port := range seen {
					if port < first || uint32(port) > last {
						t.Errorf("port %d", port)
					}
				}
				for range 2 {
					if err := dial(); !errors.Is(err, unix.EADDRNOTAVAIL) {
						t.Errorf("one more connection: %v", err)
					}
				}
				// A port that is free again is found.
				if err := seen[first].Close(); err != nil {
					t.Fatal(err)
				}
				delete(seen, first)
				if err := dial(); err != nil || seen[first] == nil {
					t.Errorf("after a port is free again: %v", err)
				}
			})
		}
	}
}

// connect makes one attempt; its socket is kept where it stands.
func connect(t *testing.T, client socket.Spec, port uint16, to netip.AddrPort, seen map[uint16]*socket.Socket) error {
	t.Helper()
	s, err := client.Socket(port)
	if err != nil {
		return err
	}
	if err := s.Connect(to); err != nil {
		s.Close()
		return err
	}
	t.Cleanup(func() { s.Close() })
	if seen[s.Local().Port()] != nil {
		t.Errorf("port %d has two connections", s.Local().Port())
	}
	seen[s.Local().Port()] = s
	return nil
}

// What is no want of a port is not tried again.
func TestDialMakesOneAttempt(t *testing.T) {
	client, server := flowtest.Nodes(t, false)
	d := socket.Dialer{Spec: socket.Spec{
		End: client, Role: socket.Client, Options: &tcplabv1.SocketOptions{LocalPorts: &tcplabv1.PortRange{First: 40_001, Last: 40_100}},
	}}
	attempts := 0
	err := d.Dial(func(port uint16) error {
		attempts++
		s, err := d.Spec.Socket(port)
		if err != nil {
			return err
		}
		defer s.Close()
		return s.Connect(netip.AddrPortFrom(server.Addr, 9))
	})
	if !errors.Is(err, unix.ECONNREFUSED) || attempts != 1 {
		t.Errorf("%d attempts: %v", attempts, err)
	}
}
