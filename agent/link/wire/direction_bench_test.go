package wire

import (
	"testing"
	"time"

	"github.com/tcplab/tcplab/agent/link"
)

// BenchmarkDirection carries a frame each µs through the model with 100,000 frames in flight.
func BenchmarkDirection(b *testing.B) {
	const delay = 100 * time.Millisecond
	queue := link.Queue{Packets: 200_000}
	shapes := []struct {
		name  string
		shape link.Shape
	}{
		{"delay", link.Shape{Delay: delay}},
		{"rate", link.Shape{Delay: delay, Rate: 13e9, Queue: queue, Loss: link.RandomLoss(0.001)}},
		{"codel", link.Shape{Delay: delay, Rate: 13e9, Queue: link.Queue{Packets: 200_000, Discipline: link.CoDel}}},
		{"jitter", link.Shape{Delay: delay, Jitter: link.Jitter{Amount: 10 * time.Millisecond, Distribution: link.Normal}}},
		{"jitter that reorders", link.Shape{Delay: delay, Jitter: link.Jitter{Amount: 10 * time.Millisecond, Distribution: link.Normal, Reorder: true}}},
		{"reorder", link.Shape{Delay: delay, Reorder: link.Reorder{Chance: link.Chance{Probability: 0.01}}}},
	}
	for _, s := range shapes {
		b.Run(s.name, func(b *testing.B) {
			m := newModel(s.shape, 1)
			now := int64(0)
			turn := func() {
				now += 1000
				m.store.reserve()
				f := m.store.commit(64) // the model does not look into it
				f.size = 1514
				m.offer(now, f)
				for f := m.next(now); f != nil; f = m.next(now) {
					m.giveBack(f)
				}
			}
			for range 200_000 {
				turn()
			}
			b.ReportAllocs()
			for b.Loop() {
				turn()
			}
		})
	}
}
