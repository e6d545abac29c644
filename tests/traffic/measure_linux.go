package traffic

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Node is where a program would run: a network namespace, by its path, and its
// address.
type Node struct {
	Path    string // such as DeployedNode.netns_path
	Address netip.Addr
}

// buffer of sockets in bytes: what comes while the reader sleeps.
const buffer = 64 << 20

// settle is how long the receivers wait after the last datagram that anything could
// still bring.
const settle = 100 * time.Millisecond

// Measure sends the streams and returns what became of each. linger is how
// much longer than the sending the last datagram may take: the link's delay and
// its queue. It needs root in both namespaces.
func Measure(ctx context.Context, from, to Node, streams []Stream, linger time.Duration) ([]Seen, error) {
	receivers := make([]int, len(streams))
	senders := make([]int, len(streams))
	for i := range streams {
		receivers[i], senders[i] = -1, -1
	}
	defer func() {
		for i := range streams {
			for _, fd := range []int{receivers[i], senders[i]} {
				if fd >= 0 {
					unix.Close(fd)
				}
			}
		}
	}()
	var before tally
	err := In(to.Path, func() (err error) {
		for i, s := range streams {
			if receivers[i], err = receiver(to.Address, s.Port); err != nil {
				return err
			}
		}
		before, err = thrown(to.Address)
		return err
	})
	if err == nil {
		err = In(from.Path, func() (err error) {
			for i, s := range streams {
				if senders[i], err = sender(from.Address, to.Address, s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, err
	}
	seen := make([]Seen, len(streams))
	start := realtime()
	sent := make(chan struct{})
	var receiving errgroup.Group
	for i, s := range streams {
		seen[i].Stream = s
		receiving.Go(func() (err error) {
			seen[i].Arrivals, err = receive(ctx, receivers[i], s.Count, start, sent, linger+settle)
			return err
		})
	}
	var sending errgroup.Group
	for i, s := range streams {
		sending.Go(func() (err error) {
			seen[i].Sent, err = send(ctx, senders[i], s, start)
			return err
		})
	}
	err = sending.Wait()
	close(sent)
	err = errors.Join(err, receiving.Wait())
	if err != nil {
		return nil, err
	}
	err = In(to.Path, func() error {
		after, err := thrown(to.Address)
		for i := range seen {
			seen[i].Damaged = after.damaged - before.damaged
		}
		// The socket's own count of drops (SO_RXQ_OVFL) has damaged datagrams among them.
		if lost := after.overflow - before.overflow; err == nil && lost > 0 {
			err = fmt.Errorf("this host was too busy: the receive buffer lost %d datagrams", lost)
		}
		return err
	})
	return seen, err
}

// In runs fn on a thread in the network namespace at the path.
func In(path string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		file, err := os.Open(path)
		if err != nil {
			done <- err
			return
		}
		defer file.Close()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", path, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// realtime is the clock of the kernel's time stamps.
func realtime() time.Time { return time.Now().Round(0) }

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: int(port), Addr: a.As16()}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// option is a socket option with its value.
type option struct{ level, name, value int }

func open(a netip.Addr, port uint16, options ...option) (int, error) {
	fd, err := unix.Socket(family(a), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("set socket option %d of %d: %w", o.name, o.level, err)
		}
	}
	if err := unix.Bind(fd, sockaddr(a, port)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind to %s port %d: %w", a, port, err)
	}
	return fd, nil
}

func receiver(a netip.Addr, port uint16) (int, error) {
	tos := option{unix.IPPROTO_IP, unix.IP_RECVTOS, 1}
	if a.Is6() {
		tos = option{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1}
	}
	return open(a, port, tos,
		option{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer},
		option{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1})
}

func sender(from, to netip.Addr, s Stream) (int, error) {
	options := []option{{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer}}
	if s.ECN {
		const ect0 = 2
		if from.Is4() {
			options = append(options, option{unix.IPPROTO_IP, unix.IP_TOS, ect0})
		} else {
			options = append(options, option{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, ect0})
		}
	}
	fd, err := open(from, cmp.Or(s.From, s.Port), options...)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sockaddr(to, s.Port)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %s port %d: %w", to, s.Port, err)
	}
	return fd, nil
}

// send sends the stream and says when each datagram went.
func send(ctx context.Context, fd int, s Stream, start time.Time) ([]time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	headers := 14 + 20 + 8
	if address, err := unix.Getsockname(fd); err == nil {
		if _, v6 := address.(*unix.SockaddrInet6); v6 {
			headers += 20
		}
	}
	if s.Frame < MinFrame {
		return nil, fmt.Errorf("a frame of %d bytes holds no number: at least %d", s.Frame, MinFrame)
	}
	data := make([]byte, s.Frame-headers)
	sent := make([]time.Duration, 0, s.Count)
	for i := range s.Count {
		if i%64 == 0 && ctx.Err() != nil {
			return sent, ctx.Err()
		}
		until(start.Add(s.Start + time.Duration(i)*s.Every))
		binary.BigEndian.PutUint64(data, uint64(i))
		at := realtime().Sub(start)
		for {
			_, err := unix.Write(fd, data)
			if err == nil {
				break
			}
			// Refused: by an ICMP message for one before.
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED) {
				return sent, fmt.Errorf("send datagram %d: %w", i, err)
			}
			if ctx.Err() != nil {
				return sent, ctx.Err()
			}
		}
		sent = append(sent, at)
	}
	return sent, nil
}

// until sleeps, and the last bit of the way watches the clock.
func until(moment time.Time) {
	const watch = 100 * time.Microsecond
	if ahead := time.Until(moment) - watch; ahead > 0 {
		ts := unix.NsecToTimespec(int64(ahead))
		_ = unix.Nanosleep(&ts, nil) // cut short by a signal: the rest is watched
	}
	for time.Until(moment) > 0 {
	}
}

// receive notes what comes until linger after the sending has ended.
func receive(ctx context.Context, fd, count int, start time.Time, sent <-chan struct{}, linger time.Duration) ([]Arrival, error) {
	var all []Arrival
	// Also the watch for the end.
	timeout := unix.NsecToTimeval(int64(20 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, fmt.Errorf("set a timeout: %w", err)
	}
	data, control := make([]byte, 1<<16), make([]byte, 256)
	var end time.Time
	for {
		n, on, _, _, err := unix.Recvmsg(fd, data, control, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case err != nil:
			return all, fmt.Errorf("receive: %w", err)
		case n < 8:
			return all, fmt.Errorf("a datagram of %d bytes came", n)
		default:
			a, err := arrival(data, control[:on], start)
			if err != nil {
				return all, err
			}
			if a.Number >= count {
				continue // damaged where no checksum looks
			}
			all = append(all, a)
			continue
		}
		if err := ctx.Err(); err != nil {
			return all, err
		}
		select {
		case <-sent:
			if end.IsZero() {
				end = time.Now().Add(linger)
			}
		default:
		}
		if !end.IsZero() && time.Now().After(end) {
			return all, nil
		}
	}
}

func arrival(data, control []byte, start time.Time) (Arrival, error) {
	a := Arrival{Number: int(min(binary.BigEndian.Uint64(data), 1<<62))}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return a, fmt.Errorf("read what came with a datagram: %w", err)
	}
	const ecn, ce = 3, 3
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS:
			stamp := *(*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			a.At = time.Unix(stamp.Unix()).Sub(start)
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TOS:
			a.CE = m.Data[0]&ecn == ce
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_TCLASS:
			a.CE = m.Data[0]&ecn == ce
		}
	}
	return a, nil
}

// tally is what this thread's namespace has thrown away.
type tally struct {
	damaged  uint64 // datagrams, for their checksum: UDP's and IPv4's own
	overflow uint64 // datagrams, for want of room in a receive buffer
}

// thrown reads the tally of an address's family.
func thrown(a netip.Addr) (t tally, err error) {
	path, pairs := "/proc/thread-self/net/snmp", pairsOfSNMP
	damaged, overflow := []string{"Udp:InCsumErrors", "Ip:InHdrErrors"}, "Udp:RcvbufErrors"
	if a.Is6() {
		path, pairs = "/proc/thread-self/net/snmp6", pairsOfSNMP6
		damaged, overflow = []string{"Udp6InCsumErrors"}, "Udp6RcvbufErrors"
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return t, err
	}
	values, err := pairs(string(content))
	for _, name := range damaged {
		t.damaged += values[name]
	}
	t.overflow = values[overflow]
	return t, err
}

// pairsOfSNMP reads lines of names, each followed by one of values.
func pairsOfSNMP(content string) (map[string]uint64, error) {
	values := map[string]uint64{}
	var names []string
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(names) != len(fields) || names[0] != fields[0] {
			names = fields
			continue
		}
		for i, name := range names {
			if names[0] != "Udp:" && names[0] != "Ip:" || i == 0 {
				continue
			}
			n, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return nil, err
			}
			values[names[0]+name] = n
		}
	}
	return values, nil
}

// pairsOfSNMP6 reads lines of a name and a value.
func pairsOfSNMP6(content string) (map[string]uint64, error) {
	values := map[string]uint64{}
	for line := range strings.Lines(content) {
		if fields := strings.Fields(line); len(fields) == 2 {
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return nil, err
			}
			values[fields[0]] = n
		}
	}
	return values, nil
}

// Connect is how long a TCP connection takes to be made, to a listener that it puts at
// the other node.
func Connect(ctx context.Context, from, to Node, port uint16) (time.Duration, error) {
	var once sync.Once
	listener := -1
	err := In(to.Path, func() (err error) {
		if listener, err = unix.Socket(family(to.Address), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
			err = unix.Bind(listener, sockaddr(to.Address, port))
		}
		if err == nil {
			err = unix.Listen(listener, 1)
		}
		return err
	})
	closeListener := func() { once.Do(func() { unix.Close(listener) }) }
	if listener >= 0 {
		defer closeListener()
	}
	if err != nil {
		return 0, fmt.Errorf("listen on %s port %d: %w", to.Address, port, err)
	}
	var took time.Duration
	err = In(from.Path, func() error {
		fd, err := unix.Socket(family(from.Address), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// No orphan keeps the namespace alive.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
		timeout := unix.NsecToTimeval(int64(5 * time.Second))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
			return err
		}
		start := time.Now()
		if err := unix.Connect(fd, sockaddr(to.Address, port)); err != nil {
			return fmt.Errorf("connect to %s port %d: %w", to.Address, port, err)
		}
		took = time.Since(start)
		return ctx.Err()
	})
	return took, err
}
