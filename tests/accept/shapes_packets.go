package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tcplab/tcplab/tests/traffic"
)

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func delayRows() []shapeRow {
	const asked = 50 * time.Millisecond
	// spread judges mean and standard deviation in ms, and a quantile.
	spread := func(deviation, q, at float64) func([]traffic.Seen, time.Duration) (string, error) {
		return func(seen []traffic.Seen, slack time.Duration) (string, error) {
			delays := seen[0].Delays()
			mean, sd := traffic.Deviation(delays)
			quantile := traffic.Quantile(delays, q)
			figure := fmt.Sprintf("%.2f ± %.2f ms, p%.3g %.2f ms", ms(mean), ms(sd), q*100, ms(quantile))
			switch {
			case math.Abs(ms(mean)-50) > 1+ms(slack):
				return figure, errors.New("50 ms were asked")
			case math.Abs(ms(sd)-deviation) > 0.12*deviation:
				return figure, fmt.Errorf("a deviation of %.2f ms was asked", deviation)
			case math.Abs(ms(quantile)-at) > 1+ms(slack):
				return figure, fmt.Errorf("p%.3g at %.2f ms was asked", q*100, at)
			}
			return figure, nil
		}
	}
	jitter := func(more string) string {
		return "{delay: 50ms, jitter: {amount: 10ms, reorder: true, " + more + "}}"
	}
	normal := jitter("distribution: normal")
	many := paced(1500, time.Millisecond)
	return []shapeRow{
		{
			name: "delay", shape: "{delay: 50ms}", without: "{}",
			judge: func(seen []traffic.Seen, slack time.Duration) (string, error) {
				delays := seen[0].Delays()
				least, median := traffic.Quantile(delays, 0), traffic.Quantile(delays, 0.5)
				figure := fmt.Sprintf("%.3f ms at least, p50 %.3f ms", ms(least), ms(median))
				if len(delays) < 100 || least < asked-50*time.Microsecond || median > asked+slack {
					return figure, errors.New("50 ms were asked")
				}
				return figure, nil
			},
		},
		// Half its width over √3, 50 - 0.9·10 at p5.
		{name: "jitter: uniform", shape: jitter("distribution: uniform"), without: normal, streams: many, judge: spread(10/math.Sqrt(3), 0.05, 41)},
		{name: "jitter: normal", shape: normal, without: jitter("distribution: uniform"), streams: many, judge: spread(10, 0.0228, 30)},
		// Shape 3, mean 0, deviation 1: (x - 1.5)/0.866 for x ≥ 1; the median 2^(1/3).
		{name: "jitter: pareto", shape: jitter("distribution: pareto"), without: normal, streams: many, judge: skewed(10, 50+10*(math.Cbrt(2)-1.5)/math.Sqrt(0.75))},
		{name: "jitter: paretonormal", shape: jitter("distribution: paretonormal"), without: normal, streams: many, judge: skewed(10, 47.6)},
		{
			name: "jitter: table", shape: jitter("distribution: table, quantiles: [-1, -1, 1, 1]"), without: jitter("distribution: uniform"), streams: many,
			judge: func(seen []traffic.Seen, slack time.Duration) (string, error) {
				low := 0
				for _, d := range seen[0].Delays() {
					if d < 41*time.Millisecond+slack {
						low++
					}
				}
				share := float64(low) / float64(max(1, len(seen[0].Arrivals)))
				figure := fmt.Sprintf("%.1f%% at the lower end", share*100)
				if share < 0.29 || share > 0.45 {
					return figure, errors.New("a third was asked")
				}
				return figure, nil
			},
		},
		{
			name: "jitter: correlation", shape: jitter("distribution: normal, correlation: 75%"), without: normal, streams: many,
			// Linux: tabledist in sch_netem.c draws by the low bits, which do not correlate.
			refused: map[string]string{"netem": "correlat"},
			judge: func(seen []traffic.Seen, _ time.Duration) (string, error) {
				delays := make([]time.Duration, len(seen[0].Sent))
				for _, a := range seen[0].Arrivals {
					delays[a.Number] = a.At - seen[0].Sent[a.Number]
				}
				mean, deviation := traffic.Deviation(delays)
				sum := 0.0
				for i := 1; i < len(delays); i++ {
					sum += float64(delays[i]-mean) * float64(delays[i-1]-mean)
				}
				c := sum / float64(len(delays)-1) / float64(deviation) / float64(deviation)
				figure := fmt.Sprintf("neighbours correlate by %.2f", c)
				if c < 0.55 || c > 0.9 {
					return figure, errors.New("0.75 was asked")
				}
				return figure, nil
			},
		},
		{
			name: "jitter keeps order", shape: "{delay: 50ms, jitter: {amount: 10ms, distribution: normal}}", without: normal, streams: many,
			judge: func(seen []traffic.Seen, _ time.Duration) (string, error) {
				_, deviation := traffic.Deviation(seen[0].Delays())
				figure := fmt.Sprintf("%d of %d overtaken, deviation %.2f ms", seen[0].Overtaken(), len(seen[0].Arrivals), ms(deviation))
				if seen[0].Overtaken() > 0 || deviation < time.Millisecond {
					return figure, errors.New("jitter in order was asked")
				}
				return figure, nil
			},
		},
		{
			name: "jitter reorders when asked", shape: normal, without: "{delay: 50ms, jitter: {amount: 10ms, distribution: normal}}", streams: many,
			judge: func(seen []traffic.Seen, _ time.Duration) (string, error) {
				figure := fmt.Sprintf("%d of %d overtaken", seen[0].Overtaken(), len(seen[0].Arrivals))
				if seen[0].Overtaken() < 100 {
					return figure, errors.New("reordering was asked")
				}
				return figure, nil
			},
		},
	}
}

// skewed judges the deviation and the median of a distribution with a long tail, in ms.
func skewed(deviation, median float64) func([]traffic.Seen, time.Duration) (string, error) {
	return func(seen []traffic.Seen, slack time.Duration) (string, error) {
		delays := seen[0].Delays()
		_, sd := traffic.Deviation(delays)
		p50, p98 := traffic.Quantile(delays, 0.5), traffic.Quantile(delays, 0.98)
		figure := fmt.Sprintf("± %.2f ms, p50 %.2f ms, p98 %.2f ms", ms(sd), ms(p50), ms(p98))
		// A normal distribution has p98 at 2.05 deviations.
		if math.Abs(ms(sd)-deviation) > 0.3*deviation || math.Abs(ms(p50)-median) > 0.8+ms(slack) || ms(p98) < 50+2.3*deviation {
			return figure, fmt.Errorf("± %.1f ms, p50 %.2f ms and a long tail were asked", deviation, median)
		}
		return figure, nil
	}
}

// losses are the lengths of the rows of datagrams that were lost one after another.
func losses(s traffic.Seen) (rows []int, share float64) {
	last := -2
	for _, n := range s.Lost() {
		if n == last+1 {
			rows[len(rows)-1]++
		} else {
			rows = append(rows, 1)
		}
		last = n
	}
	return rows, float64(len(s.Lost())) / float64(max(1, len(s.Sent)))
}

// bursty judges a share of loss, in percent, and the mean length of a row of losses.
func bursty(least, most, shortest, longest float64) func([]traffic.Seen, time.Duration) (string, error) {
	return func(seen []traffic.Seen, _ time.Duration) (string, error) {
		rows, share := losses(seen[0])
		lost := 0
		for _, n := range rows {
			lost += n
		}
		mean := float64(lost) / float64(max(1, len(rows)))
		figure := fmt.Sprintf("%.2f%% lost, %.2f in a row", share*100, mean)
		if share*100 < least || share*100 > most || mean < shortest || mean > longest {
			return figure, fmt.Errorf("%g to %g%%, %g to %g in a row were asked", least, most, shortest, longest)
		}
		return figure, nil
	}
}

// exactly judges which datagrams were lost, by number from 0.
func exactly(want func(number int) bool) func([]traffic.Seen, time.Duration) (string, error) {
	return func(seen []traffic.Seen, _ time.Duration) (string, error) {
		var asked []int
		for i := range seen[0].Sent {
			if want(i) {
				asked = append(asked, i)
			}
		}
		lost := seen[0].Lost()
		figure := fmt.Sprintf("lost %s", numbers(lost))
		if !slices.Equal(lost, asked) {
			return figure, fmt.Errorf("%s were asked", numbers(asked))
		}
		return figure, nil
	}
}

// numbers are the first few, counted from 1.
func numbers(all []int) string {
	if len(all) == 0 {
		return "none"
	}
	var words []string
	for _, n := range all[:min(4, len(all))] {
		words = append(words, fmt.Sprint(n+1))
	}
	if len(all) > 4 {
		words = append(words, "…")
	}
	return strings.Join(words, ", ")
}

func lossRows() []shapeRow {
	many := paced(4000, 250*time.Microsecond)
	// Binomial of 4000 with 10%: standard deviation 0.47%; 99.9% are within 3.29 of them.
	return []shapeRow{
		{name: "loss", shape: "{delay: 10ms, loss: 10%}", without: "{delay: 10ms, loss: 5%}", streams: many, judge: bursty(8.44, 11.56, 1, 1.3)},
		{name: "loss: correlation", shape: "{delay: 10ms, loss: {probability: 10%, correlation: 50%}}", without: "{delay: 10ms, loss: 10%}", streams: many, judge: bursty(7.5, 12.5, 1.3, 2.5)},
		// 2% into the bad state, 20% out of it: 9.1%, 5 in a row.
		{name: "loss: gilbert-elliott", shape: "{delay: 10ms, loss: {gilbert: {to_bad: 2%, to_good: 20%}}}", without: "{delay: 10ms, loss: 9.1%}", streams: many, judge: bursty(5, 14, 3.2, 7.5)},
		// s1 : s2 : s3 : s4 = 1 : 0.06 : 0.1 : 0.01, so that 9.4% are lost.
		{name: "loss: four states", shape: "{delay: 10ms, loss: {states: {p13: 2%, p31: 20%, p32: 30%, p23: 50%, p14: 1%}}}", without: "{delay: 10ms, loss: 9.4%}", streams: many, judge: bursty(6, 13, 1.4, 2.6)},
		{name: "loss: listed packets", shape: "{delay: 10ms, loss: {packets: [3, 7, 8]}}", without: "{delay: 10ms}", judge: exactly(func(n int) bool { return n == 2 || n == 6 || n == 7 })},
		{name: "loss: every nth", shape: "{delay: 10ms, loss: {every: 10}}", without: "{delay: 10ms}", judge: exactly(func(n int) bool { return n%10 == 9 })},
		{name: "down", shape: "{delay: 10ms, down: true}", without: "{delay: 10ms}", judge: exactly(func(int) bool { return true })},
	}
}

func packetRows() []shapeRow {
	// soon is the share of those that were not delayed.
	soon := func(least, most float64) func([]traffic.Seen, time.Duration) (string, error) {
		return func(seen []traffic.Seen, _ time.Duration) (string, error) {
			early := 0
			for _, d := range seen[0].Delays() {
				if d < 10*time.Millisecond {
					early++
				}
			}
			share := 100 * float64(early) / float64(max(1, len(seen[0].Arrivals)))
			figure := fmt.Sprintf("%.1f%% at once, %d overtaken", share, seen[0].Overtaken())
			if share < least || share > most || seen[0].Overtaken() == 0 {
				return figure, fmt.Errorf("%g to %g%% were asked", least, most)
			}
			return figure, nil
		}
	}
	const plain = "{delay: 30ms}"
	return []shapeRow{
		// 2000 with 25%: 99.9% within 3.2%.
		{name: "reorder", shape: "{delay: 30ms, reorder: 25%}", without: plain, streams: paced(2000, 500*time.Microsecond), judge: soon(21.8, 28.2)},
		{name: "reorder: gap", shape: "{delay: 30ms, reorder: {probability: 100%, gap: 5}}", without: plain, streams: paced(1000, 500*time.Microsecond), judge: soon(19, 21)},
		{
			name: "duplicate", shape: "{delay: 30ms, duplicate: 10%}", without: plain, streams: paced(3000, 300*time.Microsecond),
			judge: func(seen []traffic.Seen, _ time.Duration) (string, error) {
				share := 100 * float64(seen[0].Twice()) / float64(len(seen[0].Sent))
				figure := fmt.Sprintf("%.2f%% came twice", share)
				if share < 8.2 || share > 11.8 || len(seen[0].Lost()) > 0 {
					return figure, errors.New("10% ± 1.8% were asked")
				}
				return figure, nil
			},
		},
		{
			name: "corrupt", shape: "{delay: 30ms, corrupt: 10%}", without: plain, streams: []traffic.Stream{{Port: 4000, Frame: kilo, Count: 3000, Every: 300 * time.Microsecond}},
			judge: func(seen []traffic.Seen, _ time.Duration) (string, error) {
				lost := float64(len(seen[0].Lost()))
				share := 100 * lost / float64(len(seen[0].Sent))
				figure := fmt.Sprintf("%.2f%% thrown away, %d for their checksum", share, seen[0].Damaged)
				// A bit of an address or of a field that no checksum covers is seen otherwise, or not at all.
				if share < 7.7 || share > 11.8 || float64(seen[0].Damaged) < 0.8*lost {
					return figure, errors.New("10% ± 1.8%, found by checksum, were asked")
				}
				return figure, nil
			},
		},
	}
}
