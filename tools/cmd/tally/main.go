// Command tally reads what `go test -json` prints, of one run or several one
// after another, and prints what a person wants to know: a line for each package
// as it ends, the output of the tests that failed, why tests were skipped, and at
// last the totals.
//
//	go test -json ./... | tally
//
// It exits with 1 when anything failed, and when no test ran at all: a run that
// tests nothing is not taken for one that found nothing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

func main() {
	ok, err := tally(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// event is a line of go test -json (cmd/test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Output      string
	Elapsed     float64 // s
	FailedBuild string
}

// tally reads events until the input ends and tells whether all is well. Lines
// that are no events are passed on: the go command's own complaints.
func tally(in io.Reader, out io.Writer) (bool, error) {
	var run run
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			fmt.Fprintln(out, lines.Text())
			continue
		}
		run.take(e, out)
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("read the events: %w", err)
	}
	return run.conclude(out), nil
}
