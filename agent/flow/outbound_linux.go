package flow

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// outbound sends one direction of a bulk. send is called once, finish from anywhere.
type outbound struct {
	*stream
	bulk
	fin bool // a FIN says where it ends

	begin time.Time // of send: from when bytes are due
	until time.Time // when it ends; zero: with its last byte

	once   sync.Once
	enough chan struct{} // closed when nothing more is to be written
}

// finish ends the direction in order. It wakes a write that waits for room; what the kernel took by
// then still goes out.
func (o *outbound) finish() {
	o.once.Do(func() {
		close(o.enough)
		// An error says that the connection is gone, which the write meets too.
		_ = o.FinishWriting()
	})
}

// isOver reports whether finish was called.
func (o *outbound) isOver() bool {
	select {
	case <-o.enough:
		return true
	default:
		return false
	}
}

// send writes until all is written, or the time is over, or finish is called.
func (o *outbound) send(ctx context.Context) error {
	o.begin, o.until = time.Now(), o.stream.until
	if o.duration > 0 {
		o.until = o.begin.Add(o.duration)
	}
	if !o.until.IsZero() {
		timer := time.AfterFunc(time.Until(o.until), o.finish)
		defer timer.Stop()
	}
	err := o.writeAll(ctx)
	if o.isOver() && (err == nil || errors.Is(err, unix.EPIPE)) {
		err = nil
	} else if err == nil && o.fin {
		o.finish()
	}
	if o.zerocopy {
		sends, copied, zerocopyErr := o.AwaitZerocopy()
		o.zerocopySends, o.zerocopyCopied = sends, copied
		err = errors.Join(err, zerocopyErr)
	}
	return err
}

func (o *outbound) writeAll(ctx context.Context) error {
	if o.plan == nil && !o.zerocopy && o.size > 0 && !o.fin {
		return o.sendLong(o.size)
	}
	chunk := sendSize
	if o.plan != nil {
		chunk = o.write
	} else if err := o.Cork(true); err != nil { // full segments; a FIN takes the cork off
		return err
	}
	p := make([]byte, chunk)
	var sent uint64
	for o.size == 0 || sent < o.size {
		if o.size > 0 {
			p = p[:min(uint64(len(p)), o.size-sent)]
		}
		if o.plan != nil {
			if err := o.await(ctx, sent); err != nil {
				return err
			}
		}
		if o.isOver() {
			return nil
		}
		if err := o.put(p); err != nil {
			return err
		}
		sent += uint64(len(p))
	}
	if o.plan == nil {
		return o.Cork(false)
	}
	return nil
}

// await waits until the byte behind so many is due.
func (o *outbound) await(ctx context.Context, sent uint64) error {
	d := time.Until(o.begin.Add(o.plan.Due(float64(sent))))
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-o.enough:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// put writes p in one write(2).
func (o *outbound) put(p []byte) error {
	if !o.zerocopy {
		return o.stream.send(p)
	}
	n, err := o.WriteZerocopy(p)
	o.written += uint64(n)
	return err
}
