package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/tcplab/tcplab/internal/uml"
)

// qdiscs is how long the netem engine takes over the qdiscs of a link, beside tc. Those stand inside
// the engine, so this is the engine's own benchmark, built by go from the repository. Without netem, links
// have a tbf over a pfifo.
func qdiscs() Measurement {
	m := qdiscsBy("netem, the qdiscs of 1000 links: ", "tbf", func(ctx context.Context, args ...string) ([]byte, error) {
		return exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	})
	m.Name = "netem, qdiscs"
	m.Setup = "qdiscs: a tbf over a pfifo at each end of 1000 veths in one namespace, added (and read back, outside the time); tc -batch from standard input, and a process for each " +
		"qdisc of 20 links, which takes the longer the more interfaces there are (3 ms each beside a few, 17 ms beside these)."
	return m
}

// guestQdiscs is qdiscs in a guest, whose kernel has netem: a netem over a tbf over a pfifo.
func guestQdiscs() Measurement {
	m := qdiscsBy("netem in user-mode Linux, the qdiscs of 1000 links: ", "netem", func(ctx context.Context, args ...string) ([]byte, error) {
		var out bytes.Buffer
		err := uml.Run(ctx, uml.Config{Stdout: &out, Stderr: &out}, args...)
		return out.Bytes(), err
	})
	m.Name = "netem in user-mode Linux, qdiscs"
	m.Setup = "qdiscs in user-mode Linux: a netem over a tbf over a pfifo, the same way."
	m.Limit += bootTime
	return m
}

// qdiscsBy runs the engine's benchmark of that name.
func qdiscsBy(name, benchmark string, run func(ctx context.Context, args ...string) ([]byte, error)) Measurement {
	return Measurement{
		Limit: time.Minute,
		Rows: []Row{
			{Name: name + "one link", Unit: "µs", Digits: 1, Target: Target{Most: new(1.), OfPeer: true}, Peer: "tc -batch"},
			{Name: name + "one link, again", Unit: "µs", Digits: 1, Target: Target{Most: new(0.2), OfPeer: true}, Peer: "tc, a process each"},
		},
		Once: func(ctx context.Context) (_ []Figure, err error) {
			dir, err := os.MkdirTemp("", "tcplab-bench-")
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			program := filepath.Join(dir, "netem.test")
			if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "./agent/link/netem").CombinedOutput(); err != nil {
				return nil, fmt.Errorf("build the engine's benchmark: %w: %s", err, out)
			}
			out, err := run(ctx, program, "-test.run=^$", "-test.bench=^BenchmarkQdiscs$/^"+benchmark+"$", "-test.benchtime=1x")
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
