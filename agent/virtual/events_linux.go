package virtual

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// maxEvent bounds an event of a guest in bytes: a result with all its series is the longest.
const maxEvent = 64 << 20

// errPartly says that the file ends within an event.
var errPartly = errors.New("an event that is not whole yet")

// nextEvent takes the first event off content.
func nextEvent(content []byte) (e *tcplabv1.GuestEvent, rest []byte, err error) {
	length, n := protowire.ConsumeVarint(content)
	switch {
	case n < 0 && len(content) < 10: // the longest varint
		return nil, content, errPartly
	case n < 0 || length > maxEvent:
		return nil, content, errors.New("no event, and no length of one")
	case uint64(len(content)-n) < length:
		return nil, content, errPartly
	}
	e = &tcplabv1.GuestEvent{}
	if err := proto.Unmarshal(content[n:n+int(length)], e); err != nil {
		return nil, content, fmt.Errorf("decode an event: %w", err)
	}
	return e, content[n+int(length):], nil
}

// appendEvent encodes an event as nextEvent takes it.
func appendEvent(to []byte, e *tcplabv1.GuestEvent) ([]byte, error) {
	content, err := proto.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(protowire.AppendVarint(to, uint64(len(content))), content...), nil
}

// bell is the console on which a guest says that it has appended an event. What it says is nothing
// but that.
type bell struct {
	rung     chan struct{} // has a value where the file may have grown
	over     chan struct{} // closed at the kernel's end
	followed chan struct{} // closed when nothing more is read
}

func newBell() *bell {
	return &bell{rung: make(chan struct{}, 1), over: make(chan struct{}), followed: make(chan struct{})}
}

// Write implements io.Writer.
func (b *bell) Write(p []byte) (int, error) {
	select {
	case b.rung <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (b *bell) close() { close(b.over) }

// follow takes in the guest's events until its kernel has ended.
func (g *guest) follow(b *bell) {
	defer close(b.followed)
	file, err := os.Open(filepath.Join(g.dir, eventsFile))
	if err != nil {
		g.kill(fmt.Errorf("follow the guest: %w", err))
		return
	}
	defer file.Close()
	var content []byte
	for over := false; !over; {
		select {
		case <-b.rung:
		case <-b.over:
			over = true
		}
		fresh, err := io.ReadAll(file)
		content = append(content, fresh...)
		for err == nil {
			var e *tcplabv1.GuestEvent
			if e, content, err = nextEvent(content); err == nil {
				g.add(e)
			}
		}
		if !errors.Is(err, errPartly) {
			g.kill(fmt.Errorf("follow the guest: %w", err))
			return
		}
	}
}
