package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tcplab/tcplab/tests/traffic"
)

// medians judges the median delay of each stream.
func medians(asked ...time.Duration) func([]traffic.Seen, time.Duration) (string, error) {
	return func(seen []traffic.Seen, slack time.Duration) (string, error) {
		var figures []string
		var wrong error
		for i, want := range asked {
			got := traffic.Quantile(seen[i].Delays(), 0.5)
			figures = append(figures, fmt.Sprintf("%.2f ms", ms(got)))
			if got < want-100*time.Microsecond || got > want+slack {
				wrong = fmt.Errorf("%v were asked", asked)
			}
		}
		return strings.Join(figures, ", "), wrong
	}
}

func pathRows() []shapeRow {
	const near, far = 5 * time.Millisecond, 40 * time.Millisecond
	path := func(match string) string {
		return "{delay: 5ms, paths: [{name: far, match: {" + match + "}, delay: 40ms}]}"
	}
	const without = "{delay: 5ms}"
	web := []traffic.Stream{
		{Port: 4000, Frame: 100, Count: 50, Every: 4 * time.Millisecond},
		{Port: 80, From: 4998, Frame: 100, Count: 50, Every: 4 * time.Millisecond},
		{Port: 4001, From: 80, Frame: 100, Count: 50, Every: 4 * time.Millisecond},
	}
	return []shapeRow{
		{name: "match: destination", shape: path("destination: FAR"), without: without, streams: paced(50, 4*time.Millisecond), far: true, judge: medians(near, far)},
		{name: "match: port", shape: path("port: 80"), without: without, streams: web, judge: medians(near, far, far)},
		{name: "match: protocol", shape: path("protocol: tcp"), without: without, streams: web[:1], connects: true, judge: medians(near, far)},
		{name: "match: protocol and port", shape: path("protocol: udp, port: 80"), without: without, streams: web[:2], connects: true, judge: medians(near, far, near)},
	}
}

// timeRows are what changes with time. A schedule is played from when a lab stands.
func timeRows() []shapeRow {
	// A frame each 500 µs for 1.6 s: 16 Mbit/s, more than any step's rate.
	flood := []traffic.Stream{{Port: 4000, Frame: kilo, Count: 3200, Every: 500 * time.Microsecond}}
	// rates are those of spans of 100 ms.
	rates := func(s traffic.Seen) []float64 {
		var all []float64
		for at := time.Duration(0); at < 1500*time.Millisecond; at += 100 * time.Millisecond {
			frames := 0
			for _, a := range s.Arrivals {
				if a.At >= at && a.At < at+100*time.Millisecond {
					frames++
				}
			}
			all = append(all, float64(frames*kilo*8)/0.1/1e6)
		}
		return all
	}
	count := func(all []float64, low, high float64) int {
		n := 0
		for _, r := range all {
			if r >= low && r <= high {
				n++
			}
		}
		return n
	}
	steps := func(seen []traffic.Seen, _ time.Duration) (string, error) {
		all := rates(seen[0])
		low, high := count(all, 1.7, 2.4), count(all, 7.2, 8.9)
		figure := fmt.Sprintf("of 15 spans %d at 2 Mbit/s, %d at 8", low, high)
		if low < 3 || high < 3 {
			return figure, errors.New("200 ms of each in turn were asked")
		}
		return figure, nil
	}
	const alternating = "0s, 8Mbit, 1ms, 0%\n0.2s, 2Mbit, 1ms, 0%\n0.4s, 8Mbit, 1ms, 0%\n"
	return []shapeRow{
		{
			// 1 ms apart for half a second, then nothing for another.
			name: "trace: mahimahi", shape: "{trace: half.up}", without: "{rate: 6Mbit}", attachments: map[string]string{"half.up": mahimahi()},
			streams: []traffic.Stream{{Port: 4000, Frame: 1514, Count: 1400, Every: 1500 * time.Microsecond}}, linger: 1500 * time.Millisecond,
			judge: func(seen []traffic.Seen, _ time.Duration) (string, error) {
				pauses := 0
				var longest time.Duration
				arrivals := seen[0].Arrivals
				for i := 1; i < len(arrivals); i++ {
					pause := arrivals[i].At - arrivals[i-1].At
					longest = max(longest, pause)
					if pause > 450*time.Millisecond && pause < 560*time.Millisecond {
						pauses++
					}
				}
				figure := fmt.Sprintf("%d pauses of half a second, the longest %v", pauses, longest.Round(time.Millisecond))
				if pauses < 1 {
					return figure, errors.New("a pause of half a second in each second was asked")
				}
				return figure, nil
			},
			refused: map[string]string{"netem": "wire"},
		},
		{name: "trace: csv", shape: "{trace: {file: steps.csv, loop: true}, queue: 100}", without: "{rate: 8Mbit, queue: 100}", attachments: map[string]string{"steps.csv": "time, rate, delay, loss\n" + alternating}, streams: flood, judge: steps},
		{name: "schedule: steps", shape: "{rate: 8Mbit, queue: 100, schedule: {period: 400ms, steps: [{at: 200ms, rate: 2Mbit}]}}", without: "{rate: 8Mbit, queue: 100}", streams: flood, judge: steps},
		{
			name: "schedule: ramp", shape: "{rate: 2Mbit, queue: 20, schedule: {period: 1s, steps: [{at: 0s, ramp: 1s, rate: 12Mbit}]}}", without: "{rate: 7Mbit, queue: 20}", streams: flood,
			judge: func(seen []traffic.Seen, _ time.Duration) (string, error) {
				all := rates(seen[0])
				low, middle, high := count(all, 1.8, 4.7), count(all, 5.3, 8.7), count(all, 9.2, 13)
				figure := fmt.Sprintf("of 15 spans %d below 4.7 Mbit/s, %d of 5.3 to 8.7, %d above 9.2", low, middle, high)
				if low < 2 || middle < 3 || high < 2 {
					return figure, errors.New("a rate that rises evenly was asked")
				}
				return figure, nil
			},
		},
		{
			name: "schedule: down and up", shape: "{delay: 1ms, schedule: {period: 400ms, steps: [{at: 200ms, down: true}]}}", without: "{delay: 1ms}", streams: flood,
			judge: func(seen []traffic.Seen, _ time.Duration) (string, error) {
				rows, share := losses(seen[0])
				long := 0
				for _, n := range rows {
					if n > 350 && n < 450 { // 200 ms
						long++
					}
				}
				figure := fmt.Sprintf("%d times down for 200 ms, %.0f%% lost", long, share*100)
				if long < 2 || share < 0.3 || share > 0.7 {
					return figure, errors.New("down for 200 ms of each 400 was asked")
				}
				return figure, nil
			},
		},
	}
}

// mahimahi is a trace with a moment in each ms of the first half second, and a last one
// at its end.
func mahimahi() string {
	var b strings.Builder
	for i := 1; i <= 500; i++ {
		fmt.Fprintln(&b, i)
	}
	fmt.Fprintln(&b, 1000)
	return b.String()
}
