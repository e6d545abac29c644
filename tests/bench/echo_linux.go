package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// echoes is what became of ICMP echo requests, which the server's kernel answers.
type echoes struct {
	trips     []time.Duration // ascending
	lost      int
	reordered int // answers that came after a later one's
}

// quantile is nearest rank; q in (0,1].
func (e echoes) quantile(q float64) time.Duration {
	return e.trips[max(0, int(q*float64(len(e.trips))+0.5)-1)]
}

const (
	// echoInterval is between two requests. An idle link stays one: a frame each
	// way is some 10 µs of work.
	echoInterval = 4 * time.Millisecond
	// echoPatience is how long after the last answer none is expected any more.
	echoPatience = time.Second
	echoLength   = 64 // bytes of ICMP, as ping's
)

// echo sends n requests, at most 65,536, at regular intervals, not waiting for
// answers: what delays one must not spare the next. As with ping the time ends with the
// kernel's stamp of arrival, so that waking the reader is no part of it.
func echo(ctx context.Context, b *bed, n int) (echoes, error) {
	var sock int
	err := b.client.NS.Do(func() (err error) {
		sock, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	})
	if err != nil {
		return echoes{}, fmt.Errorf("open an ICMP socket: %w", err)
	}
	defer unix.Close(sock)
	patience := unix.NsecToTimeval(echoPatience.Nanoseconds())
	if err := errors.Join(
		unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
	); err != nil {
		return echoes{}, fmt.Errorf("prepare an ICMP socket: %w", err)
	}
	sent := make(chan error, 1)
	go func() {
		sent <- request(ctx, sock, unix.SockaddrInet4{Addr: b.server.Addr.As4()}, n)
	}()
	result, err := answers(sock, n)
	return result, errors.Join(<-sent, err)
}

// request sends the requests, each with its number and the time at which it was sent.
func request(ctx context.Context, sock int, to unix.SockaddrInet4, n int) error {
	tick := time.NewTicker(echoInterval)
	defer tick.Stop()
	for i := range n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		message := make([]byte, echoLength)
		message[0] = 8 // echo request (RFC 792)
		binary.BigEndian.PutUint16(message[6:], uint16(i))
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
			return err
		}
		binary.BigEndian.PutUint64(message[8:], uint64(now.Nano()))
		binary.BigEndian.PutUint16(message[2:], checksum(message))
		if err := unix.Sendto(sock, message, 0, &to); err != nil {
			return fmt.Errorf("send an echo request: %w", err)
		}
	}
	return nil
}

// answers reads n of them, or until they stay away.
func answers(sock, n int) (echoes, error) {
	var result echoes
	packet, control := make([]byte, 256), make([]byte, 128)
	last := -1
	for len(result.trips) < n {
		length, controls, _, _, err := unix.Recvmsg(sock, packet, control, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return result, fmt.Errorf("receive an echo: %w", err)
		}
		const header = 20 // of IPv4 without options
		if length != header+echoLength || packet[header] != 0 {
			continue
		}
		arrived, err := stamp(control[:controls])
		if err != nil {
			return result, err
		}
		message := packet[header:]
		number := int(binary.BigEndian.Uint16(message[6:]))
		result.trips = append(result.trips, time.Duration(arrived-int64(binary.BigEndian.Uint64(message[8:]))))
		if number < last {
			result.reordered++
		}
		last = max(last, number)
	}
	result.lost = n - len(result.trips)
	if len(result.trips) == 0 {
		return result, errors.New("no echo request was answered")
	}
	slices.Sort(result.trips)
	return result, nil
}

// stamp is the kernel's time of arrival, in ns since the epoch.
func stamp(control []byte) (int64, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, fmt.Errorf("read an echo's time of arrival: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			return (*unix.Timespec)(unsafe.Pointer(&m.Data[0])).Nano(), nil
		}
	}
	return 0, errors.New("an echo came without its time of arrival")
}

// checksum is the Internet's (RFC 1071) over an even number of bytes.
func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
