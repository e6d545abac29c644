package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tcplab/tcplab/tests/traffic"
)

// shapeRow is one impairment: what is asked of a link, what is sent over it, and
// how what came is judged. The judgement must not hold on a link
// without the impairment.
type shapeRow struct {
	name    string
	shape   string           // the direction as a lab file says it
	without string           // the same less the impairment
	streams []traffic.Stream // default: 100 small datagrams, 2 ms apart
	linger  time.Duration    // default: 300 ms
	// far sends the streams to the server's second address too: seen has them behind the
	// others. In the shape FAR stands for that address.
	far bool
	// connects makes a TCP connection to port 80 too: what it took is the delay of a stream of one, the
	// last in seen.
	connects bool
	// attachments by file name, beside the lab.
	attachments map[string]string
	judge       func(seen []traffic.Seen, slack time.Duration) (figure string, err error)
	// refused is a word of what an engine says that cannot do it, by engine.
	refused map[string]string
}

// Sizes and rates that are easy in the head: at 8 Mbit/s a frame of 1000 bytes takes 1 ms.
const (
	kilo      = 1000
	frameTime = time.Millisecond
)

func paced(n int, every time.Duration) []traffic.Stream {
	return []traffic.Stream{{Port: 4000, Frame: 100, Count: n, Every: every}}
}

func burstOf(n int) []traffic.Stream {
	return []traffic.Stream{{Port: 4000, Frame: kilo, Count: n}}
}

// overload offers a bottleneck of 8 Mbit/s so many frames of 1000 bytes a second.
func overload(perSecond int, lasts time.Duration, ecn bool) []traffic.Stream {
	every := time.Second / time.Duration(perSecond)
	return []traffic.Stream{{Port: 4000, Frame: kilo, Count: int(lasts / every), Every: every, ECN: ecn}}
}

// shapeRows are all impairments.
func shapeRows() []shapeRow {
	return slices.Concat(rateRows(), queueRows(), delayRows(), lossRows(), packetRows(), timeRows(), pathRows())
}

func rateRows() []shapeRow {
	rate := func(want float64) func([]traffic.Seen, time.Duration) (string, error) {
		return func(seen []traffic.Seen, _ time.Duration) (string, error) {
			s := seen[0]
			if len(s.Arrivals) < s.Count/2 {
				return fmt.Sprintf("%d of %d came", len(s.Arrivals), s.Count), errors.New("too few to tell a rate")
			}
			// What an idle bottleneck lets through at once is over by then.
			first := s.Arrivals[0].At + 20*time.Millisecond
			got := s.Rate(first, s.Arrivals[len(s.Arrivals)-1].At)
			return within(got/1e6, want/1e6, 0.01, "Mbit/s")
		}
	}
	// Long enough that a guest's tick of 10 ms is well below a hundredth of it.
	small := []traffic.Stream{{Port: 4000, Frame: 100, Count: 3000}}
	return []shapeRow{
		{name: "rate", shape: "{rate: 8Mbit, queue: 1000}", without: "{rate: 80Mbit, queue: 1000}", streams: burstOf(300), linger: time.Second, judge: rate(8e6)},
		// 24 bytes beside the frame: preamble 8, FCS 4, gap 12.
		{name: "overhead: ethernet", shape: "{rate: 1Mbit, queue: 3000, overhead: ethernet}", without: "{rate: 1Mbit, queue: 3000}", streams: small, linger: 4 * time.Second, judge: rate(1e6 * 100 / 124)},
		// 100 bytes are three cells of 53.
		{name: "overhead: atm", shape: "{rate: 1Mbit, queue: 3000, overhead: atm}", without: "{rate: 1Mbit, queue: 3000}", streams: small, linger: 4 * time.Second, judge: rate(1e6 * 100 / 159)},
		{name: "overhead: 60B", shape: "{rate: 1Mbit, queue: 3000, overhead: 60B}", without: "{rate: 1Mbit, queue: 3000}", streams: small, linger: 4 * time.Second, judge: rate(1e6 * 100 / 160)},
		{
			name: "burst", shape: "{rate: 8Mbit, queue: 1000, burst: 20kB}", without: "{rate: 8Mbit, queue: 1000}", streams: burstOf(60), linger: 500 * time.Millisecond,
			judge: func(seen []traffic.Seen, slack time.Duration) (string, error) {
				s := seen[0]
				if len(s.Arrivals) < 60 {
					return "", fmt.Errorf("%d of 60 came", len(s.Arrivals))
				}
				at := func(n int) time.Duration { return s.Arrivals[n].At - s.Arrivals[0].At }
				figure := fmt.Sprintf("the 20th came after %v, the 50th after %v", at(19).Round(10*time.Microsecond), at(49).Round(10*time.Microsecond))
				if at(19) > sending(s)+slack+3*frameTime || at(49) < 22*frameTime || at(49) > 32*frameTime+slack+sending(s) {
					return figure, errors.New("20 kB at once, and 1 ms each from then on, were asked")
				}
				return figure, nil
			},
		},
	}
}

// sending is how long sending a stream took.
func sending(s traffic.Seen) time.Duration {
	if len(s.Sent) == 0 {
		return 0
	}
	return s.Sent[len(s.Sent)-1] - s.Sent[0]
}

// filled judges how many frames of a burst came through a queue of so many, at 1 ms each.
func filled(places int) func([]traffic.Seen, time.Duration) (string, error) {
	return func(seen []traffic.Seen, _ time.Duration) (string, error) {
		s := seen[0]
		figure := fmt.Sprintf("%d of %d came", len(s.Arrivals), s.Count)
		// One is being sent; what leaves while the burst still comes makes room, and an
		// engine may let a millisecond's worth through at once.
		least, most := places+1, places+1+int(sending(s)/frameTime)+4
		if n := len(s.Arrivals); n < least || n > most {
			return figure, fmt.Errorf("%d to %d were asked", least, most)
		}
		return figure, nil
	}
}

func queueRows() []shapeRow {
	// Drops of CoDel under a load that answers none: the nth comes interval·2·√n
	// after the first (RFC 8289, 5.4): some 25 in the first second.
	early := func(seen []traffic.Seen, _ time.Duration) (string, error) {
		s := seen[0]
		lost := s.Lost()
		figure := fmt.Sprintf("%d dropped of %d, %d marked", len(lost), s.Count, s.Marked())
		if len(lost) < 10 || len(lost) > 45 || s.Marked() > 0 {
			return figure, errors.New("10 to 45 drops and no mark were asked")
		}
		return figure, nil
	}
	marks := func(least int) func([]traffic.Seen, time.Duration) (string, error) {
		return func(seen []traffic.Seen, _ time.Duration) (string, error) {
			s := seen[0]
			figure := fmt.Sprintf("%d marked of %d, %d dropped", s.Marked(), s.Count, len(s.Lost()))
			if s.Marked() < least || len(s.Lost()) > 0 {
				return figure, fmt.Errorf("at least %d marks and no drop were asked", least)
			}
			return figure, nil
		}
	}
	// Pie drops while its probability is above 10% (RFC 8033, 5.1), as it is at first.
	someMarks := func(seen []traffic.Seen, _ time.Duration) (string, error) {
		figure := fmt.Sprintf("%d marked of %d, %d dropped", seen[0].Marked(), seen[0].Count, len(seen[0].Lost()))
		if seen[0].Marked() < 5 {
			return figure, errors.New("marks were asked")
		}
		return figure, nil
	}
	// held judges the waiting time at the end of an overload.
	held := func(least, most time.Duration) func([]traffic.Seen, time.Duration) (string, error) {
		return func(seen []traffic.Seen, _ time.Duration) (string, error) {
			delays := seen[0].Delays()
			late := traffic.Quantile(delays[len(delays)*3/4:], 0.5)
			figure := fmt.Sprintf("waiting %v at the end, %d dropped", late.Round(100*time.Microsecond), len(seen[0].Lost()))
			if late < least || late > most {
				return figure, fmt.Errorf("%v to %v were asked", least, most)
			}
			return figure, nil
		}
	}
	// sparse judges that a few datagrams do not wait behind many of another flow.
	sparse := func(seen []traffic.Seen, slack time.Duration) (string, error) {
		bulk, few := traffic.Quantile(seen[0].Delays(), 0.5), traffic.Quantile(seen[1].Delays(), 0.5)
		figure := fmt.Sprintf("the sparse flow waits %v, the other %v", few.Round(10*time.Microsecond), bulk.Round(10*time.Microsecond))
		if few > 4*frameTime+slack || bulk < 20*time.Millisecond {
			return figure, errors.New("a sparse flow past a long queue was asked")
		}
		return figure, nil
	}
	two := append(overload(1500, time.Second, false), traffic.Stream{Port: 4001, From: 4999, Frame: 100, Count: 40, Every: 20 * time.Millisecond, Start: 150 * time.Millisecond})
	netemOnly := map[string]string{"wire": "netem"}
	return []shapeRow{
		{name: "queue in packets", shape: "{rate: 8Mbit, queue: 50}", without: "{rate: 8Mbit, queue: 1000}", streams: burstOf(200), judge: filled(50)},
		{name: "queue in bytes", shape: "{rate: 8Mbit, queue: 50kB}", without: "{rate: 8Mbit, queue: 1000}", streams: burstOf(200), judge: filled(50)},
		{name: "queue in time", shape: "{rate: 8Mbit, queue: 50ms}", without: "{rate: 8Mbit, queue: 1000}", streams: burstOf(200), judge: filled(50)},
		// One bandwidth-delay product by default: 2 Mbit/s × 2 s there and back are 331 frames of 1514 bytes.
		{name: "queue by default", shape: "{rate: 2Mbit, delay: 2s}", without: "{rate: 2Mbit, delay: 2s, queue: 100}", streams: burstOf(600), linger: 4 * time.Second, judge: filled(331)},
		{
			name: "head-drop", shape: "{rate: 8Mbit, queue: {limit: 50, discipline: head-drop}}", without: "{rate: 8Mbit, queue: 50}", streams: burstOf(200),
			judge: func(seen []traffic.Seen, slack time.Duration) (string, error) {
				last := 0
				for _, a := range seen[0].Arrivals {
					if a.Number >= 150 {
						last++
					}
				}
				figure := fmt.Sprintf("%d of the last 50 came, %d in all", last, len(seen[0].Arrivals))
				if last != 50 {
					return figure, errors.New("the last 50 were asked")
				}
				return filled(50)(seen, slack)
			},
		},
		{name: "red", shape: "{rate: 8Mbit, queue: {limit: 400kB, discipline: red, red: {min: 15kB, max: 45kB, probability: 10%}}}", without: "{rate: 8Mbit, queue: 400kB}", streams: overload(1500, 2*time.Second, false), linger: time.Second, judge: held(10*time.Millisecond, 120*time.Millisecond), refused: netemOnly},
		{name: "red with ecn", shape: "{rate: 8Mbit, queue: {limit: 400kB, discipline: red, ecn: true, red: {min: 5kB, max: 200kB, probability: 50%}}}", without: "{rate: 8Mbit, queue: {limit: 400kB, discipline: red, red: {min: 5kB, max: 200kB, probability: 50%}}}", streams: overload(1100, time.Second, true), linger: time.Second, judge: marks(5), refused: netemOnly},
		{name: "codel", shape: "{rate: 8Mbit, queue: {limit: 1000, discipline: codel}}", without: "{rate: 8Mbit, queue: 1000}", streams: overload(1250, time.Second, false), linger: time.Second, judge: early},
		{name: "codel with ecn", shape: "{rate: 8Mbit, queue: {limit: 1000, discipline: codel, ecn: true}}", without: "{rate: 8Mbit, queue: {limit: 1000, discipline: codel}}", streams: overload(1250, time.Second, true), linger: time.Second, judge: marks(10)},
		{name: "fq_codel", shape: "{rate: 8Mbit, queue: {limit: 1000, discipline: fq_codel}}", without: "{rate: 8Mbit, queue: {limit: 1000, discipline: codel}}", streams: two, linger: time.Second, judge: sparse, refused: netemOnly},
		{name: "fq_codel with ecn", shape: "{rate: 8Mbit, queue: {limit: 1000, discipline: fq_codel, ecn: true}}", without: "{rate: 8Mbit, queue: {limit: 1000, discipline: fq_codel}}", streams: overload(1250, time.Second, true), linger: time.Second, judge: marks(10), refused: netemOnly},
		{name: "cake", shape: "{rate: 8Mbit, queue: {discipline: cake}}", without: "{rate: 8Mbit, queue: 1MB}", streams: two, linger: time.Second, judge: sparse, refused: netemOnly},
		{name: "pie", shape: "{rate: 8Mbit, queue: {limit: 2000, discipline: pie}}", without: "{rate: 8Mbit, queue: 2000}", streams: overload(1250, 4*time.Second, false), linger: 2 * time.Second, judge: held(0, 150*time.Millisecond), refused: netemOnly},
		{name: "pie with ecn", shape: "{rate: 8Mbit, queue: {limit: 2000, discipline: pie, ecn: true}}", without: "{rate: 8Mbit, queue: {limit: 2000, discipline: pie}}", streams: overload(1050, 2*time.Second, true), linger: 2 * time.Second, judge: someMarks, refused: netemOnly},
	}
}

// within judges a figure with a unit against what was asked.
func within(got, want, share float64, unit string) (string, error) {
	figure := fmt.Sprintf("%.4g %s", got, unit)
	if math.Abs(got-want) > share*want {
		return figure, fmt.Errorf("%.4g %s ± %g%% were asked", want, unit, share*100)
	}
	return figure, nil
}
