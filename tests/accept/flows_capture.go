package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// allFlowsLab has every kind of flow and every observer.
const allFlowsLab = "tests/all-flows/lab.yaml"

// captureChecks are those of what one trial of every kind of flow was seen to do from several sides.
func captureChecks() []Check {
	return []Check{
		{
			Name: "every kind of flow natively: both ends, the kernel's counters, tcplab's reading of the captures and tshark's agree, to the segment", Limit: 5 * time.Minute,
			Run: func(ctx context.Context, b *Bench) (string, error) {
				return allFlowsAgree(ctx, b, allFlows{dir: "natively", command: []string{b.Tcplab}, timely: true})
			},
		},
		{
			Name: "and in user-mode-linux with netem", Limit: 10 * time.Minute,
			Run: func(ctx context.Context, b *Bench) (string, error) {
				return allFlowsAgree(ctx, b, allFlows{dir: "guest", command: []string{b.Umlrun, "-writable", b.Dir, "--", b.Tcplab}})
			},
		},
	}
}

// allFlows is a way to run the lab.
type allFlows struct {
	dir     string   // of its state, in the bench's folder
	command []string // that is tcplab there
	timely  bool     // whether times are to hold as well: a guest's are those of a machine that it shares
}

// allFlowsAgree runs the lab, and reads what it left. All its flows must have done all they should, and every
// expectation must hold that counts.
func allFlowsAgree(ctx context.Context, b *Bench, how allFlows) (string, error) {
	state := filepath.Join(b.Dir, how.dir)
	if err := os.Mkdir(state, 0o700); err != nil {
		return "", fmt.Errorf("make a folder for the run: %w", err)
	}
	args := append(slices.Clone(how.command[1:]), "--state-dir", state, "run", allFlowsLab, "--allow-exec", "-o", "json")
	result, err := b.Exec(ctx, how.command[0], args...)
	if err != nil {
		return "", err
	}
	report, err := reportOf(result)
	if err != nil {
		return "", err
	}
	if report.GetState() != tcplabv1.RunState_RUN_STATE_SUCCEEDED || len(report.GetTrials()) != 1 {
		return "", fmt.Errorf("exit status %d: %s", result.Status, lastLines(result.Stderr))
	}
	times, held := 0, 0
	for _, e := range report.GetExpectations() {
		passed, ofTime := e.GetVerdict() == tcplabv1.Verdict_VERDICT_PASSED, e.GetPredicted() != 0
		if !passed && (how.timely || !ofTime) {
			return "", fmt.Errorf("%s: %s", e.GetName(), e.GetDetail())
		}
		if ofTime {
			times++
			if passed {
				held++
			}
		}
	}
	seen, err := b.sidesOf(ctx, state, report)
	if err != nil {
		return "", err
	}
	compared, wrong := seen.compare()
	figure := fmt.Sprintf("%d connections, %d flows, %d counts compared; %d of %d expectations of times held in %.0f s",
		seen.connections(), len(seen.trial.GetFlows()), compared, held, times, result.Took.Seconds())
	if len(wrong) > 0 {
		return figure, fmt.Errorf("%d differ: %w", len(wrong), errors.Join(wrong[:min(len(wrong), 10)]...))
	}
	return figure, nil
}

// capturedAt is one connection as tcplab reads it at a node; `tcplab capture --connections -o json`.
type capturedAt struct {
	Number  int             `json:"number"`
	Flow    string          `json:"flow"`
	Node    string          `json:"node"`
	Client  string          `json:"client"`
	Server  string          `json:"server"`
	Reading json.RawMessage `json:"reading"`

	read *tcplabv1.CapturedFlow // Reading
}

// sides is what one trial looks like from each side.
type sides struct {
	trial   *tcplabv1.TrialReport
	read    []*capturedAt
	tshark  map[string]*seenByTshark // by node
	samples []sampleRow
}

// sidesOf collects them.
func (b *Bench) sidesOf(ctx context.Context, state string, report *tcplabv1.RunReport) (*sides, error) {
	s := &sides{trial: report.GetTrials()[0], tshark: make(map[string]*seenByTshark)}
	capture := func(args ...string) (string, error) {
		result, err := b.Run(ctx, append([]string{"--state-dir", state, "capture", report.GetId()}, args...)...)
		if err == nil && result.Status != 0 {
			err = fmt.Errorf("tcplab capture: exit status %d: %s", result.Status, lastLines(result.Stderr))
		}
		return result.Stdout, err
	}
	list, err := capture("--connections", "-o", "json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(list), &s.read); err != nil {
		return nil, fmt.Errorf("read the connections: %w", err)
	}
	for _, c := range s.read {
		c.read = &tcplabv1.CapturedFlow{}
		if err := protojson.Unmarshal(c.Reading, c.read); err != nil {
			return nil, fmt.Errorf("read a connection: %w", err)
		}
	}
	for _, c := range s.trial.GetCaptures() {
		file := filepath.Join(state, c.GetNode()+".pcapng")
		if _, err := capture("--node", c.GetNode(), "--write", file); err != nil {
			return nil, err
		}
		if s.tshark[c.GetNode()], err = b.tshark(ctx, file); err != nil {
			return nil, err
		}
	}
	s.samples, err = samplesIn(filepath.Join(state, "artifacts", report.GetId(), "1", "samples.parquet"))
	return s, err
}

// connections is how many there are.
func (s *sides) connections() int {
	most := 0
	for _, c := range s.read {
		most = max(most, c.Number)
	}
	return most
}
