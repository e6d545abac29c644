package cli

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/tcplab/tcplab/internal/trace"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// exportCapture writes the captures as one pcapng file: a node's alone as it is, several by time.
func (a *app) exportCapture(ctx context.Context, s *captureReader, name string) error {
	return a.toFile(name, true, func(w io.Writer) error {
		if len(s.captures) > 1 {
			return s.merge(ctx, w)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		file, err := s.open(ctx, s.captures[0])
		if err == nil {
			_, err = io.Copy(w, file)
		}
		return err
	})
}

// merge writes the packets of all captures in the order of their times.
func (s *captureReader) merge(ctx context.Context, out io.Writer) error {
	w := trace.NewWriter(out)
	type source struct {
		first int // index of its first interface in the file
		next  func() (trace.Packet, error, bool)
		head  trace.Packet
		ended bool
	}
	var sources []*source
	for _, c := range s.captures {
		info, err := s.each(ctx, c, func(trace.Packet) error { return nil })
		if err != nil {
			return err
		}
		from := &source{}
		for i, known := range info.Interfaces {
			known.Name = c.GetNode() + ":" + known.Name
			id, err := w.Add(known, "")
			if err != nil {
				return err
			}
			if i == 0 {
				from.first = id
			}
		}
		next, stop := iter.Pull2(s.packets(ctx, c))
		defer stop()
		from.next = next
		sources = append(sources, from)
	}
	advance := func(from *source) error {
		p, err, more := from.next()
		from.head, from.ended = p, !more
		return err
	}
	for _, from := range sources {
		if err := advance(from); err != nil {
			return err
		}
	}
	for {
		var oldest *source
		for _, from := range sources {
			if !from.ended && (oldest == nil || from.head.Time.Before(oldest.head.Time)) {
				oldest = from
			}
		}
		if oldest == nil {
			break
		}
		p := oldest.head
		p.Interface += oldest.first
		if err := errors.Join(w.Packet(p), advance(oldest)); err != nil {
			return err
		}
	}
	return w.Flush()
}

// errEnough ends a reading that nobody wants more of.
var errEnough = errors.New("enough")

// packets are a node's, one after another; a packet's data is valid until the next.
func (s *captureReader) packets(ctx context.Context, c *tcplabv1.NodeCapture) iter.Seq2[trace.Packet, error] {
	return func(yield func(trace.Packet, error) bool) {
		_, err := s.each(ctx, c, func(p trace.Packet) error {
			if !yield(p, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(trace.Packet{}, err)
		}
	}
}
