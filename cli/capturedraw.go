package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/term"

	"github.com/tcplab/tcplab/internal/trace"
	"github.com/tcplab/tcplab/internal/trace/diagram"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// drawConnection draws one connection from the captures of both ends.
func (a *app) drawConnection(ctx context.Context, s *captureReader, f *captureFlags) error {
	all, err := s.connections(ctx)
	if err != nil {
		return err
	}
	chosen, err := f.one(all)
	if err != nil {
		return err
	}
	whole := true
	var captures [][]trace.Event
	for _, c := range s.captures {
		if chosen.at[c.GetNode()] == nil && c.GetAll().GetConnections() > 0 {
			continue // a node that the connection does not touch
		}
		whole = whole && c.GetDropped() == 0 && c.GetLeftOut() == 0
		var r trace.Reading
		number := 0 // of the connection in this capture, once it is known
		if seen := chosen.at[c.GetNode()]; seen != nil {
			number = seen.Number
		}
		var events []trace.Event
		if _, err := s.each(ctx, c, func(p trace.Packet) error {
			if connection, event := r.Read(p); connection != nil && connection.Number == number {
				events = append(events, *event)
			}
			return nil
		}); err != nil {
			return err
		}
		captures = append(captures, events)
	}
	x := trace.Pair(chosen.which, whole, captures...)
	options := diagram.Options{
		Client: s.owner(chosen.which.Client.Addr()), Server: s.owner(chosen.which.Server.Addr()),
		After: f.after, Most: f.most, Width: a.outputWidth(),
	}
	if f.svg == "" {
		_, err := io.WriteString(a.Out, diagram.Text(x, options))
		return err
	}
	return a.toFile(f.svg, false, func(w io.Writer) error {
		_, err := io.WriteString(w, diagram.SVG(x, options))
		return err
	})
}

// one is the connection that was asked for.
func (f *captureFlags) one(all []*seenConnection) (*seenConnection, error) {
	switch {
	case len(all) == 0:
		return nil, usageError("no TCP connection was captured")
	case f.connection > len(all):
		return nil, usageError("--connection %d: there are %d; see --connections", f.connection, len(all))
	case f.connection > 0:
		return all[f.connection-1], nil
	case f.flow == "":
		return all[0], nil
	}
	for _, c := range all {
		if c.flow == f.flow {
			return c, nil
		}
	}
	return nil, usageError("no connection of a flow %q was captured; see --connections", f.flow)
}

// owner is the node that has an address; empty: none of the lab's.
func (s *captureReader) owner(address netip.Addr) string {
	for _, l := range s.trial.GetLab().GetLinks() {
		for _, end := range []*tcplabv1.LinkEnd{l.GetA(), l.GetB()} {
			for _, text := range end.GetAddresses() {
				if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Addr() == address {
					return end.GetNode()
				}
			}
		}
	}
	return ""
}

// outputWidth is the width of the terminal that standard output is; 0: it is none.
func (a *app) outputWidth() int {
	if f, ok := a.Out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}

// toFile writes a file, or standard output for -; what is binary is no text for a terminal.
func (a *app) toFile(name string, binary bool, write func(io.Writer) error) error {
	if name == "-" {
		if binary && a.outputWidth() > 0 {
			return usageError("standard output is a terminal; name a file, or pipe it on")
		}
		return write(a.Out)
	}
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	buffer := bufio.NewWriter(file)
	if err := errors.Join(write(buffer), buffer.Flush(), file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(name))
	}
	return nil
}
