package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/observe"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// ErrTooMuch says that there was data where the stream should have ended.
var ErrTooMuch = errors.New("the peer sent more than was agreed")

// How long an end waits for its connection to end in order: for a lost FIN to be sent
// again a few times, RTO being at least 200 ms and at first 1 s (RFC 6298).
const (
	finishBase       = 3 * time.Second
	finishRoundTrips = 8
)

// Patience is how long an end of this spec waits for its connection to end in order, where a round trip takes so
// long.
func (s *Spec) Patience(rtt time.Duration) time.Duration { return patience(s.Options, rtt) }

func patience(options *tcplabv1.SocketOptions, rtt time.Duration) time.Duration {
	if asked := options.GetLinger().AsDuration(); asked > 0 {
		return asked
	}
	return finishBase + finishRoundTrips*rtt
}

// Finish ends the connection in order: this end's FIN and the peer's are sent and
// acknowledged. Closed before that, the socket would be an orphan, or with
// SO_LINGER{1,0} reset the connection under the peer's last bytes. Where it
// fails, Close resets. One end goes first, for two FINs that cross leave both
// ends in TIME_WAIT.
func (s *Socket) Finish(ctx context.Context, first bool, rtt time.Duration) error {
	if first && s.resets() {
		return nil // Close does
	}
	ctx, cancel := context.WithTimeout(ctx, patience(s.asked, rtt))
	defer cancel()
	release := s.Guard(ctx)
	defer release()
	steps := []func() error{s.ReceiveFIN, s.FinishWriting}
	if first {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		err := step()
		if s.ResetIsTheEnd(err) {
			return nil
		}
		if err != nil {
			return explain(ctx, "exchange FINs", err)
		}
	}
	return s.await(ctx, "wait for the last ACK", func(info *observe.Info) bool { return info.State == observe.StateClose })
}

// AwaitAcknowledged waits until the peer has acknowledged so many bytes of data in all, or
// the connection is over, or ctx is.
func (s *Socket) AwaitAcknowledged(ctx context.Context, size uint64) error {
	return s.await(ctx, "wait for the acknowledgement of all data", func(info *observe.Info) bool {
		return info.BytesAcked >= size || info.State == observe.StateClose
	})
}

// await waits for something that no call waits for: TCP_INFO is looked at, ever more rarely.
func (s *Socket) await(ctx context.Context, doing string, reached func(*observe.Info) bool) error {
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		info, err := s.Info()
		if err != nil {
			return err
		}
		if reached(&info) {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return explain(ctx, doing, ctx.Err())
		}
	}
}

// explain says what failed, and why: the interruption, or what the socket says.
func explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// ResetIsTheEnd tells whether an error is the reset with which the lab wants the peer to
// end.
func (s *Socket) ResetIsTheEnd(err error) bool {
	return errors.Is(err, unix.ECONNRESET) && s.resets()
}

// resets tells whether the lab wants connections to end with a reset.
func (s *Socket) resets() bool {
	return s.asked != nil && s.asked.Linger != nil && s.asked.GetLinger().AsDuration() == 0
}

// ReceiveFIN reads the end of the stream, and nothing before it.
func (s *Socket) ReceiveFIN() error {
	switch n, err := s.Discard(make([]byte, 1)); {
	case n > 0:
		return ErrTooMuch
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}
