package virtual

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func alive(names ...string) *tcplabv1.GuestEvent {
	return &tcplabv1.GuestEvent{
		Clock: durationpb.New(time.Second),
		Event: &tcplabv1.GuestEvent_Alive{Alive: &tcplabv1.GuestAlive{Running: names}},
	}
}

// Whatever is cut off the end, what is whole is taken and the rest is waited for.
func TestEventsInPieces(t *testing.T) {
	var content []byte
	events := []*tcplabv1.GuestEvent{alive("iperf3 (12)"), {}, alive()}
	for _, e := range events {
		var err error
		if content, err = appendEvent(content, e); err != nil {
			t.Fatal(err)
		}
	}
	for end := range len(content) + 1 {
		rest := content[:end]
		var taken int
		var err error
		for err == nil {
			var e *tcplabv1.GuestEvent
			if e, rest, err = nextEvent(rest); err == nil {
				if !proto.Equal(e, events[taken]) {
					t.Fatalf("event %d of %d bytes is %v", taken, end, e)
				}
				taken++
			}
		}
		if !errors.Is(err, errPartly) {
			t.Errorf("%d bytes: %v", end, err)
		}
		if end == len(content) && taken != len(events) {
			t.Errorf("%d of %d events were taken", taken, len(events))
		}
	}
}

func FuzzNextEvent(f *testing.F) {
	whole, err := appendEvent(nil, alive("a"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, content []byte) {
		e, rest, err := nextEvent(content)
		if err == nil && (e == nil || len(rest) >= len(content)) {
			t.Errorf("an event %v of %d bytes that leaves %d", e, len(content), len(rest))
		}
	})
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string]struct {
		id    int
		state byte
		ok    bool
	}{
		"214 (iperf3) R 1 214":      {214, 'R', true},
		"7 (a b) c) (R) S 1 7 7":    {7, 'S', true},
		"":                          {},
		"nothing (x) R":             {},
		"12 (cut off)":              {},
		"12 (cut off) ":             {},
		"9 (R) D 1 9 9 0 -1 4194\n": {9, 'D', true},
	} {
		id, state, ok := parseStat(text)
		if id != want.id || state != want.state || ok != want.ok {
			t.Errorf("%q: %d %c %v", text, id, state, ok)
		}
	}
}
