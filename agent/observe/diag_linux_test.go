package observe

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

// node is a namespace of the test's own.
func node(t testing.TB) *netns.Handle {
	t.Helper()
	need.NetNS(t)
	ns, err := netns.New("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// pair is a connection of the namespace with itself, and the listener it came by.
func pair(t testing.TB, ns *netns.Handle, host string) (listener *net.TCPListener, client, server *net.TCPConn) {
	t.Helper()
	err := ns.Do(func() error {
		opened, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return err
		}
		listener = opened.(*net.TCPListener)
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		client = conn.(*net.TCPConn)
		server, err = listener.AcceptTCP()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()
		client.Close()
		server.Close()
	})
	return listener, client, server
}

func cookie(t testing.TB, conn *net.TCPConn) (cookie uint64) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var readErr error
	if err := raw.Control(func(fd uintptr) { cookie, readErr = Cookie(int(fd)) }); err != nil || readErr != nil {
		t.Fatal(err, readErr)
	}
	return cookie
}

func address(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

func TestDiagSeesTheNamespacesSockets(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			ns := node(t)
			listener, client, server := pair(t, ns, host)
			if _, err := client.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			d, err := NewDiag(ns)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			found := map[uint64]Socket{}
			if err := d.Dump(func(s *Socket) { found[s.Cookie] = *s }); err != nil {
				t.Fatal(err)
			}
			if len(found) != 3 {
				t.Errorf("%d sockets: %+v", len(found), found)
			}
			s := found[cookie(t, client)]
			if s.State != StateEstablished || s.Local != address(client.LocalAddr()) || s.Remote != address(client.RemoteAddr()) || s.Inode == 0 {
				t.Errorf("the client's socket: %+v", s)
			}
			if s.Info.BytesSent != 1000 || s.Info.SndMSS == 0 || s.Control == "" || s.Memory.SendBuffer == 0 {
				t.Errorf("the client's socket: %+v", s)
			}
			if peer := found[cookie(t, server)]; peer.Receiving != 1000 || peer.Memory.Received < 1000 {
				t.Errorf("the server has 1000 bytes to read: %+v", peer)
			}
			listening := false
			for _, s := range found {
				listening = listening || s.State == StateListen && s.Local == address(listener.Addr()) && s.Remote.Port() == 0
			}
			if !listening {
				t.Error("no listener")
			}
			again := s
			if ok, err := d.Lookup(&again); !ok || err != nil || again.Info.BytesSent != 1000 {
				t.Errorf("looked up: %v, %v, %+v", ok, err, again)
			}
			stranger := s
			stranger.Cookie++
			if ok, err := d.Lookup(&stranger); ok || err != nil {
				t.Errorf("a socket of another cookie: %v, %v", ok, err)
			}

			if _, err := io.ReadFull(server, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			// The end that closes first stays in TIME_WAIT, and keeps its cookie.
			client.Close()
			server.Close()
			awaitState(t, d, &again, StateTimeWait)
		})
	}
}

// awaitState looks until the socket is in a state.
func awaitState(t *testing.T, d *Diag, s *Socket, state uint32) {
	t.Helper()
	for t.Context().Err() == nil {
		ok, err := d.Lookup(s)
		if err != nil || !ok {
			t.Fatalf("looked up while waiting for %s: %v, %v", stateName(state), ok, err)
		}
		if s.State == state {
			return
		}
	}
}

func TestDiagOfAnIdleNamespace(t *testing.T) {
	d, err := NewDiag(node(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Dump(func(s *Socket) { t.Errorf("%+v", s) }); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := d.Dump(func(*Socket) {}); err == nil {
		t.Error("a closed Diag answers")
	}
}

func BenchmarkDiag(b *testing.B) {
	ns := node(b)
	_, client, _ := pair(b, ns, "127.0.0.1")
	d, err := NewDiag(ns)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	mine := cookie(b, client)
	var socket Socket
	b.Run("dump", func(b *testing.B) {
		for b.Loop() {
			if err := d.Dump(func(s *Socket) {
				if s.Cookie == mine {
					socket = *s
				}
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lookup", func(b *testing.B) {
		for b.Loop() {
			if ok, err := d.Lookup(&socket); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	raw, err := client.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("getsockopt", func(b *testing.B) {
		if err := raw.Control(func(fd uintptr) {
			for b.Loop() {
				if _, err := ReadInfo(int(fd)); err != nil {
					b.Fatal(err)
				}
			}
		}); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("congestion", func(b *testing.B) {
		if err := raw.Control(func(fd uintptr) {
			for b.Loop() {
				if _, err := ReadCongestion(int(fd), "bbr"); err != nil {
					b.Fatal(err)
				}
			}
		}); err != nil {
			b.Fatal(err)
		}
	})
}
