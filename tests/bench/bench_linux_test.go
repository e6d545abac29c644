package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tcplab/tcplab/agent/link/veth"
	"github.com/tcplab/tcplab/internal/need"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestJudge(t *testing.T) {
	ofPeer := Target{Least: new(0.9), OfPeer: true}
	figures := func(ours ...float64) [][]Figure {
		var all [][]Figure
		for _, x := range ours {
			all = append(all, []Figure{{Ours: x, Peer: 2}})
		}
		return all
	}
	for name, test := range map[string]struct {
		row     Row
		figures [][]Figure
		want    bool
	}{
		"the median counts":           {Row{Target: atLeast(3)}, figures(1, 4, 3), true},
		"a median below":              {Row{Target: atLeast(3)}, figures(1, 4, 2.9), false},
		"a median above":              {Row{Target: atMost(3)}, figures(1, 4, 3.1), false},
		"on the bound":                {Row{Target: between(2, 3)}, figures(3), true},
		"one loss in five":            {Row{Target: exactly(0), Every: true}, figures(0, 0, 1, 0, 0), false},
		"no loss":                     {Row{Target: exactly(0), Every: true}, figures(0, 0, 0, 0, 0), true},
		"nothing is asked":            {Row{}, figures(7), true},
		"no number":                   {Row{Target: atLeast(3)}, figures(math.NaN()), false},
		"as fast as the peer":         {Row{Target: ofPeer, Peer: "p"}, figures(1.8), true},
		"slower than the peer":        {Row{Target: ofPeer, Peer: "p"}, figures(1.7), false},
		"a peer that is not measured": {Row{Target: ofPeer}, figures(1.8), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := judge([]Row{test.row}, test.figures, nil)[0].Passed; got != test.want {
				t.Errorf("passed is %v, want %v", got, test.want)
			}
		})
	}
}

// A measurement that fails, or takes too long, fails all its rows and none of another.
func TestRunFailures(t *testing.T) {
	rows := []Row{{Name: "a", Target: atLeast(0)}, {Name: "b"}}
	fine := Measurement{Name: "fine", Limit: time.Minute, Rows: rows, Once: func(context.Context) ([]Figure, error) {
		return []Figure{{Ours: 1}, {Ours: 2}}, nil
	}}
	fails, slow, few := fine, fine, fine
	fails.Once = func(context.Context) ([]Figure, error) { return nil, errors.New("no such luck") }
	slow.Limit = time.Millisecond
	slow.Once = func(ctx context.Context) ([]Figure, error) { <-ctx.Done(); return []Figure{{}, {}}, nil }
	few.Once = func(context.Context) ([]Figure, error) { return []Figure{{}}, nil }
	var progress strings.Builder
	outcomes := run(t.Context(), []Measurement{fails, slow, few, fine}, 2, &progress)
	var got []string
	for _, o := range outcomes {
		got = append(got, o.String())
	}
	want := []string{
		"FAIL a: no such luck", "FAIL b: no such luck",
		"FAIL a: not done within 1ms", "FAIL b: not done within 1ms",
		"FAIL a: 1 figures for 2 rows", "FAIL b: 1 figures for 2 rows",
		"pass a: 1", "b: 2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if !strings.Contains(progress.String(), "4/4  fine: 2 of 2 …") {
		t.Errorf("the progress is\n%s", progress.String())
	}
	if (Report{Outcomes: outcomes}).passed() || !(Report{Outcomes: outcomes[6:]}).passed() {
		t.Error("the report does not pass where each row does")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if o := run(ctx, []Measurement{fine}, 1, &progress)[0]; o.Passed || !errors.Is(o.Err, context.Canceled) {
		t.Errorf("after the end of the context: %v", o)
	}
}

func sample() Report {
	outcomes := judge([]Row{
		{Name: "fast", Unit: "Gbit/s", Digits: 2, Target: Target{Least: new(0.9), OfPeer: true}, Peer: "iperf3"},
		{Name: "true", Unit: "ms", Digits: 1, Target: between(19.7, 20.3)},
		{Name: "told", Digits: 0},
	}, [][]Figure{
		{{Ours: 2, Peer: 4}, {Ours: 20}, {Ours: 3}},
		{{Ours: 3, Peer: 4}, {Ours: 21}, {Ours: 3}},
		{{Ours: 1, Peer: 5}, {Ours: 20.04}, {Ours: 3}},
	}, nil)
	outcomes = append(outcomes, judge([]Row{{Name: "missing", Unit: "s", Target: atMost(3)}}, nil, errors.New("it\nbroke"))...)
	return Report{Machine: Machine{Kernel: "6.1", CPUs: 2, Load: 0.5, Go: "go1"}, Times: 3, Notes: []string{"a note"}, Outcomes: outcomes}
}

func TestMarkdown(t *testing.T) {
	var out strings.Builder
	if err := sample().markdown(&out); err != nil {
		t.Fatal(err)
	}
	want := `Medians of 3, with the least and the greatest. Linux 6.1, 2 processors, load 0.50 when it began, go1.

| what | tcplab | target | peer | ratio | verdict |
|---|---|---|---|---|---|
| fast | 2.00 Gbit/s (1.00–3.00) | ≥ 0.9 × iperf3 | iperf3 4.00 Gbit/s (4.00–5.00) | 0.50 | FAIL |
| true | 20.0 ms (20.0–21.0) | 19.7 to 20.3 ms |  |  | pass |
| told | 3 |  |  |  |  |
| missing | it broke | ≤ 3 s |  |  | FAIL |

- a note
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := sample().table(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"load 0.50", "\nfast  ", "iperf3 4.00 Gbit/s (4.00–5.00)", "\n- a note\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := sample().json(&out); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Kernel string
		Passed bool
		Rows   []struct {
			Name   string
			Tcplab Spread
			Peer   *Spread
			Ratio  float64
			Passed bool
			Error  string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if got.Kernel != "6.1" || got.Passed || len(got.Rows) != 4 {
		t.Fatalf("%+v", got)
	}
	fast, missing := got.Rows[0], got.Rows[3]
	if diff := cmp.Diff(Spread{Median: 2, Least: 1, Most: 3}, fast.Tcplab); diff != "" || fast.Ratio != 0.5 || fast.Peer.Median != 4 {
		t.Errorf("%+v", fast)
	}
	if missing.Error != "it\nbroke" || missing.Passed {
		t.Errorf("%+v", missing)
	}
}

func TestArguments(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no such form":        {[]string{"-o", "xml"}, "table, json or markdown"},
		"no such measurement": {[]string{"-run", "nothing"}, "nothing"},
		"never":               {[]string{"-times", "0"}, "once"},
		"no expression":       {[]string{"-run", "("}, "-run"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, progress strings.Builder
			status, err := bench(t.Context(), test.args, &out, &progress)
			if status != 2 || err == nil || !strings.Contains(err.Error(), test.says) || out.Len() > 0 {
				t.Errorf("status %d, %v, printed %q", status, err, out.String())
			}
		})
	}
	if err := inside(t.Context(), inGuests(), "elsewhere"); err == nil {
		t.Error("a measurement that there is not was done in a guest")
	}
}

// What is done in a guest is found there by its name.
func TestGuestsAreFound(t *testing.T) {
	names := make(map[string]int)
	for _, m := range measurements("tcplab") {
		names[m.Name]++
	}
	for _, m := range inGuests() {
		if names[m.Name] != 1 {
			t.Errorf("%q stands in the table %d times", m.Name, names[m.Name])
		}
	}
}

func TestEcho(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	b, err := stand(t.Context(), veth.Engine{}, delayed(0, 0, nil), transactions(3), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	const n = 5
	seen, err := echo(t.Context(), b, n)
	if err != nil {
		t.Fatal(err)
	}
	if len(seen.trips) != n || seen.lost != 0 || seen.reordered != 0 || !slices.IsSorted(seen.trips) || seen.trips[0] <= 0 {
		t.Errorf("%d echoes: %+v", n, seen)
	}
	result, err := b.run(t.Context(), &longest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := result.GetLatency().GetCount(); got != 3 {
		t.Errorf("%d transactions, want 3", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := echo(ctx, b, n); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

func TestQuantile(t *testing.T) {
	var e echoes
	for i := range 1000 {
		e.trips = append(e.trips, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0.5: 500, 0.99: 990, 1: 1000, 0.0001: 1} {
		if got := e.quantile(q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
}

func TestChecksum(t *testing.T) {
	// RFC 1071, 3: the sum of these is ddf2.
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("checksum %x", got)
	}
}
