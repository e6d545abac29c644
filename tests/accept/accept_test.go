package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// probes is an area of checks that end in each way a check can.
func probes() []Area {
	return []Area{{Name: "probe", Checks: []Check{
		{Name: "good", Run: func(ctx context.Context, b *Bench) (string, error) {
			result, err := b.Exec(ctx, "/bin/sh", "-c", `echo "$TCPLAB_STATE_DIR" && echo oops >&2 && exit 3`)
			if err != nil || result.Status != 3 || result.Stdout != b.Dir+"/state\n" || result.Stderr != "oops\n" {
				return "", errors.New("the bench does not tell how a program ended")
			}
			return "3 states", nil
		}},
		{Name: "bad", Run: func(context.Context, *Bench) (string, error) {
			return "41 ms", errors.New("above 40 ms")
		}},
		{Name: "late", Limit: 20 * time.Millisecond, Run: func(ctx context.Context, b *Bench) (string, error) {
			_, err := b.Exec(ctx, "/bin/sleep", "600")
			return "", err
		}},
	}}}
}

func TestAccept(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		status int
		out    []string // each on the standard output
		says   []string // each in the error or the progress
	}{
		"all":          {args: nil, status: 1, out: []string{"PASS  good  3 states", "FAIL  bad   41 ms", "probe: 1 passed, 2 failed"}, says: []string{"PASS good — 3 states", "FAIL bad — 41 ms: above 40 ms", "FAIL late — not done after 20ms"}},
		"one":          {args: []string{"-run", "^good$"}, out: []string{"probe: 1 passed, 0 failed"}, says: []string{"1/1  good"}},
		"the list":     {args: []string{"-list"}, out: []string{"good\nbad\nlate\n"}},
		"no such one":  {args: []string{"-run", "nothing"}, status: 2, says: []string{"no check of probe"}},
		"no such area": {args: []string{"-area", "x"}, status: 2, says: []string{"there are: probe"}},
		"no such form": {args: []string{"-o", "xml"}, status: 2, says: []string{"table or json"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, progress bytes.Buffer
			status, err := accept(t.Context(), append([]string{"-area", "probe"}, test.args...), &out, &progress, probes())
			if status != test.status {
				t.Errorf("status %d (%v), want %d", status, err, test.status)
			}
			said := progress.String()
			if err != nil {
				said += err.Error()
			}
			for _, want := range test.out {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
			for _, want := range test.says {
				if !strings.Contains(said, want) {
					t.Errorf("no %q in\n%s", want, said)
				}
			}
		})
	}
}

func TestAcceptJSON(t *testing.T) {
	var out, progress bytes.Buffer
	if _, err := accept(t.Context(), []string{"-area", "probe", "-o", "json", "-run", "bad"}, &out, &progress, probes()); err != nil {
		t.Fatal(err)
	}
	var got []Outcome
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	for i := range got {
		got[i].Seconds = 0
	}
	want := []Outcome{{Name: "bad", Figure: "41 ms", Error: "above 40 ms"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
