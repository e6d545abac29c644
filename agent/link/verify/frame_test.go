package verify

import (
	"bytes"
	"testing"
	"time"
)

func TestProbeSurvivesTheWay(t *testing.T) {
	want := probe{nonce: 1 << 63, kind: kindTrain + 2, seq: 4711, sent: 1700000000 * time.Second}
	frame := make([]byte, smallFrame)
	want.put(frame, []byte{2, 0, 0, 0, 0, 1})
	if got, ok := parse(frame); !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
}

func FuzzParse(f *testing.F) {
	frame := make([]byte, smallFrame)
	probe{nonce: 1, kind: kindLoss, seq: 2, sent: 3}.put(frame, make([]byte, 6))
	f.Add(frame)
	f.Add(frame[:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, ok := parse(frame)
		if !ok {
			return
		}
		again := bytes.Clone(frame)
		p.put(again, frame[6:12])
		if !bytes.Equal(again, frame) {
			t.Errorf("read as %+v, written as % x, was % x", p, again, frame)
		}
	})
}
