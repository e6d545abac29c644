package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// start is the beginning of a lab that the mistakes below are made in.
const start = "name: bad\nnodes: [client, server]\nlinks:\n  - between: [client, server]\n    rtt: 20ms\n"

// flows is the rest of it.
const flows = "experiments:\n  - flows:\n      - name: f\n        transaction: {from: client, to: server, writes: [100B], reply: 100B}\n"

// mistakes are lab files that are wrong, each with what its error must say.
func mistakes() map[string]struct{ text, says string } {
	var bomb strings.Builder
	bomb.WriteString("a: &a [x,x,x,x,x,x,x,x,x]\n")
	for i := 'b'; i < 'k'; i++ {
		fmt.Fprintf(&bomb, "%c: &%c [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", i-1), 9), ","))
	}
	return map[string]struct{ text, says string }{
		"unknown key":       {start + flows + "expct: []\n", "expect"},
		"unknown unit":      {strings.Replace(start, "20ms", "20mz", 1) + flows, "20mz"},
		"unknown node":      {start + strings.Replace(flows, "to: server", "to: sever", 1), "server"},
		"unknown parameter": {strings.Replace(start, "20ms", "${rttt}", 1) + flows + "params: {rtt: 20ms}\n", "rtt"},
		"negative value":    {strings.Replace(start, "20ms", "-20ms", 1) + flows, "-20ms"},
		"NaN":               {start + "    loss: .nan\n" + flows, "(?i)nan"},
		"link to itself":    {strings.Replace(start, "[client, server]\n    rtt", "[client, client]\n    rtt", 1) + flows, "client"},
		"cycle of ${}":      {strings.Replace(start, "20ms", "${x}", 1) + flows + "params: {x: \"${y}\", y: \"${x}\"}\n", "x"},
		"over 1 MiB":        {start + flows + "# " + strings.Repeat("x", 1<<20) + "\n", "MiB"},
		"alias bomb":        {bomb.String() + start + flows, "(?i)alias|anchor"},
		"not type-checked": {start + flows + "expect:\n  - name: e\n    measure: flow.f.latency.p5O\n    predict: rtt\n    within: {ratio: 3%}\n" +
			"params: {rtt: 20ms}\n", "p50"},
		"bool for a number": {start + flows + "expect:\n  - name: e\n    measure: flow.f.latency.p50 > 1\n    predict: 1\n    within: {ratio: 3%}\n", "number"},
	}
}

// badInput wants exit status 2, file:line:column and what was meant for every
// mistake, and nothing on standard output.
func badInput(ctx context.Context, b *Bench) (string, error) {
	place := regexp.MustCompile(`(?m)^\S+\.yaml:\d+:\d+: `)
	cases := mistakes()
	for name, mistake := range cases {
		path := filepath.Join(b.Dir, "bad.yaml")
		if err := os.WriteFile(path, []byte(mistake.text), 0o600); err != nil {
			return "", err
		}
		result, err := b.Run(ctx, "run", path)
		if err != nil {
			return "", err
		}
		switch {
		case result.Status != 2:
			return "", fmt.Errorf("%s: exit status %d, want 2: %s", name, result.Status, lastLines(result.Stderr))
		case !place.MatchString(result.Stderr):
			return "", fmt.Errorf("%s: no file:line:column in %q", name, lastLines(result.Stderr))
		case !regexp.MustCompile(mistake.says).MatchString(result.Stderr):
			return "", fmt.Errorf("%s: no %s in %q", name, mistake.says, lastLines(result.Stderr))
		case result.Stdout != "":
			return "", fmt.Errorf("%s: standard output says %q", name, lastLines(result.Stdout))
		}
	}
	commands := []struct {
		args []string
		says string
	}{
		{[]string{"run", "handshak"}, "handshake"},
		{[]string{"run", "handshake", "--set", "rt=1ms"}, "rtt"},
		{[]string{"run", "handshake", "--set", "rtt=-1ms"}, "-1ms"},
		{[]string{"run", "handshake", "--engine", "magic"}, "netem"},
		{[]string{"run", "./absent.yaml"}, "absent.yaml"},
		{[]string{"run"}, "lab"},
		{[]string{"runs", "show", "nothing-0000"}, "nothing-0000"},
		{[]string{"rnu"}, "rnu"},
	}
	for _, c := range commands {
		result, err := b.Run(ctx, c.args...)
		if err != nil {
			return "", err
		}
		if result.Status != 2 || !strings.Contains(result.Stderr, c.says) {
			return "", fmt.Errorf("tcplab %s: exit status %d, want 2 and a word of %q: %s", strings.Join(c.args, " "), result.Status, c.says, lastLines(result.Stderr))
		}
	}
	return fmt.Sprintf("%d lab files and %d commands refused", len(cases), len(commands)), nil
}
