package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tcplab/tcplab/internal/need"
)

// contractLab has one of everything that a report may hold: two links' directions,
// both kinds of flow, a sweep, and expectations that hold and that do not.
const contractLab = `name: contract
title: All that a report holds
params:
  count: [2, 3]
nodes: [client, server]
links:
  - between: [client, server]
experiments:
  - flows:
      - name: get
        transaction: {from: client, to: server, writes: [10B], reply: 20B, count: "${count}"}
      - name: up
        bulk: {from: client, to: server, bytes: 100kB}
expect:
  - name: two connections
    that: counter.client.TcpActiveOpens == 2
  - name: a request takes a minute
    measure: flow.get.client.latency.p50
    predict: 60.0
    within: {ratio: 3%, slack: 2ms}
`

// contract lists the names that programs rely on, as a path to each: a name may be
// added, none may go or be renamed.
func contract() []string {
	return []string{
		"id", "lab", "state", "verdict", "engine",
		"expectations[].name", "expectations[].verdict", "expectations[].point{}", "expectations[].measured", "expectations[].predicted",
		"expectations[].permitted", "expectations[].detail",
		"trials[].point{}", "trials[].repetition",
		"trials[].links[].name", "trials[].links[].direction", "trials[].links[].engine", "trials[].links[].spec{}",
		"trials[].links[].measured.delay", "trials[].links[].measured.rate_bps", "trials[].links[].measured.loss", "trials[].links[].verdict",
		"trials[].flows[].name", "trials[].flows[].kind", "trials[].flows[].client{}", "trials[].flows[].server{}", "trials[].flows[].connect{}",
		"trials[].flows[].latency.count", "trials[].flows[].latency.min", "trials[].flows[].latency.mean", "trials[].flows[].latency.p50",
		"trials[].flows[].latency.p90", "trials[].flows[].latency.p99", "trials[].flows[].latency.max",
		"trials[].flows[].goodput_bps", "trials[].flows[].bytes", "trials[].flows[].samples_count",
	}
}

// at follows a path through decoded JSON: "a.b" an object's field, "a[]" every
// element of a list that is not empty, "a{}" an object.
func at(v any, path string) error {
	name, rest, more := strings.Cut(path, ".")
	key := strings.TrimRight(name, "[]{}")
	object, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%v is no object with %s", v, path)
	}
	field, ok := object[key]
	if !ok {
		return fmt.Errorf("there is no %s", key)
	}
	var elements []any
	switch {
	case strings.HasSuffix(name, "[]"):
		if elements, ok = field.([]any); !ok || len(elements) == 0 {
			return fmt.Errorf("%s is %v, want a list that is not empty", key, field)
		}
	case strings.HasSuffix(name, "{}"):
		if _, ok := field.(map[string]any); !ok {
			return fmt.Errorf("%s is %v, want an object", key, field)
		}
		return nil
	default:
		elements = []any{field}
	}
	if !more {
		return nil
	}
	for _, element := range elements {
		if err := at(element, rest); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// The JSON of a run has every name that was promised, whether it has a value or not;
// `runs show` prints the same.
func TestReportContract(t *testing.T) {
	need.NetNS(t)
	dir := t.TempDir()
	lab := labFile(t, "contract", contractLab)
	printed, _ := inProcess(t, exitDisagrees, "run", lab, "-o", "json", "--state-dir", dir, "--seed", "7")
	var report map[string]any
	if err := json.Unmarshal([]byte(printed), &report); err != nil {
		t.Fatalf("standard output is no JSON: %v\n%s", err, printed)
	}
	for _, path := range contract() {
		if err := at(report, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for name, want := range map[string]any{
		"lab": "contract", "state": "RUN_STATE_SUCCEEDED", "verdict": "VERDICT_FAILED", "engine": "ENGINE_VETH", "seed": "7", "failure": "",
	} {
		if report[name] != want {
			t.Errorf("%s is %v, want %v", name, report[name], want)
		}
	}
	if shown, _ := inProcess(t, exitOK, "runs", "show", "last", "-o", "json", "--state-dir", dir); shown != printed {
		t.Errorf("runs show prints something else:\n%s\nwant\n%s", shown, printed)
	}
}
