package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// qdiscs is how long the netem engine takes over the qdiscs of a link, beside tc. Those stand inside
// the engine, so this is the engine's own benchmark, run by go from the repository.
func qdiscs() Measurement {
	const name = "netem, the qdiscs of 1000 links: "
	return Measurement{
		Name: "netem, qdiscs", Limit: time.Minute,
		Setup: "qdiscs: a tbf over a pfifo at each end of 1000 veths in one namespace, added (and read back, outside the time); tc -batch from standard input, and a process for each " +
			"qdisc of 20 links, which takes the longer the more interfaces there are (3 ms each beside a few, 17 ms beside these).",
		Rows: []Row{
			{Name: name + "one link", Unit: "µs", Digits: 1, Target: Target{Most: new(1.), OfPeer: true}, Peer: "tc -batch"},
			{Name: name + "one link, again", Unit: "µs", Digits: 1, Target: Target{Most: new(0.2), OfPeer: true}, Peer: "tc, a process each"},
		},
		Once: func(ctx context.Context) ([]Figure, error) {
			out, err := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=^BenchmarkQdiscs$", "-benchtime=1x", "./agent/link/netem").CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("the engine's benchmark: %w: %s", err, out)
			}
			ours, err := metric(out, "requests-µs/link")
			if err != nil {
				return nil, err
			}
			batch, err := metric(out, "batch-µs/link")
			if err != nil {
				return nil, err
			}
			forks, err := metric(out, "forks-µs/link")
			if err != nil {
				return nil, err
			}
			return []Figure{{Ours: ours, Peer: batch}, {Ours: ours, Peer: forks}}, nil
		},
	}
}

// metric is a figure of a benchmark by its unit.
func metric(out []byte, unit string) (float64, error) {
	found := regexp.MustCompile(`([0-9.]+) ` + regexp.QuoteMeta(unit)).FindSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("the engine's benchmark tells no %s (it needs tc and tbf): %s", unit, out)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}
