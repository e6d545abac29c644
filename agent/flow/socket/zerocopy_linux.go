package socket

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetPacing has TCP send no more bytes a second than this: by its own timer, which counts payload, or by an
// fq qdisc where the node has one (SO_MAX_PACING_RATE, socket(7)).
func (s *Socket) SetPacing(bytes uint64) error {
	// The option takes a long since kernel 4.20, and x/sys has none that sets one.
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(s.FD), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE,
		uintptr(unsafe.Pointer(&bytes)), unsafe.Sizeof(bytes), 0)
	if errno != 0 {
		return fmt.Errorf("set SO_MAX_PACING_RATE to %d bytes a second: %w", bytes, errno)
	}
	return nil
}

// zerocopy is what a socket knows of its writes with MSG_ZEROCOPY. Its owner's alone.
type zerocopy struct {
	sends     uint64 // that the kernel took
	completed uint64
	copied    uint64 // of those completed
}

// EnableZerocopy lets WriteZerocopy be called.
func (s *Socket) EnableZerocopy() error {
	if err := unix.SetsockoptInt(int(s.FD), unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1); err != nil {
		return fmt.Errorf("set SO_ZEROCOPY: %w", err)
	}
	return nil
}

// WriteZerocopy is Write from p itself (MSG_ZEROCOPY): p is not to be changed before the kernel has
// completed the write. What a full account of pinned memory holds up (net.core.optmem_max) waits for
// completions.
func (s *Socket) WriteZerocopy(p []byte) (int, error) {
	for n := 0; ; {
		if s.stopped.Load() {
			return n, errStopped
		}
		m, err := s.send(p[n:], unix.MSG_ZEROCOPY)
		if m > 0 {
			n += m
			s.zerocopy.sends++
		}
		switch {
		case n == len(p):
			// Completions that nobody takes use up the account.
			return n, s.takeCompletions()
		case errors.Is(err, unix.ENOBUFS):
			if err := s.awaitCompletion(); err != nil {
				return n, err
			}
		case err != nil && !errors.Is(err, unix.EINTR):
			return n, err
		}
	}
}

// AwaitZerocopy waits until the kernel has completed every write, and returns how many there were, and
// how many of them it copied all the same. It ends early when the connection does.
func (s *Socket) AwaitZerocopy() (sends, copied uint64, err error) {
	for err == nil && s.zerocopy.completed < s.zerocopy.sends && !s.HasEnded() {
		err = s.awaitCompletion()
	}
	if err == nil {
		err = s.takeCompletions()
	}
	return s.zerocopy.completed, s.zerocopy.copied, err
}

// completionPoll is how often a wait for completions looks whether the socket was interrupted: its
// shutdown wakes a poll, and this only bounds what a race could cost.
const completionPoll = 100 * time.Millisecond

// awaitCompletion waits for something in the error queue and takes it.
func (s *Socket) awaitCompletion() error {
	// POLLERR needs not be asked for.
	waits := []unix.PollFd{{Fd: int32(s.FD)}}
	_, err := unix.Poll(waits, int(completionPoll.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for a completion: %w", err)
	}
	if s.stopped.Load() {
		return errStopped
	}
	if waits[0].Revents&unix.POLLHUP != 0 {
		// Both sides have ended, and no wait for this socket waits any more; what is not yet
		// acknowledged will be.
		_, _ = unix.Poll(nil, 1)
	}
	return s.takeCompletions()
}

// takeCompletions takes what is in the error queue (Documentation/networking/msg_zerocopy.rst): each is
// a range of writes, and says whether they were copied.
func (s *Socket) takeCompletions() error {
	var control [128]byte
	for {
		_, n, _, _, err := unix.Recvmsg(int(s.FD), nil, control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return fmt.Errorf("read completions: %w", err)
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil {
			return fmt.Errorf("read completions: %w", err)
		}
		for _, m := range messages {
			if len(m.Data) < int(unsafe.Sizeof(unix.SockExtendedErr{})) {
				continue
			}
			e := (*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0]))
			if e.Origin != unix.SO_EE_ORIGIN_ZEROCOPY {
				continue
			}
			// From Info to Data, both included; the numbers wrap.
			writes := uint64(e.Data-e.Info) + 1
			s.zerocopy.completed += writes
			if e.Code&unix.SO_EE_CODE_ZEROCOPY_COPIED != 0 {
				s.zerocopy.copied += writes
			}
		}
	}
}
