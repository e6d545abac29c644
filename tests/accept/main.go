// Command accept says whether an area of work is done: it runs one named check
// for each line of the area's "Done means" against the built binaries, as a user
// would, and prints pass or fail with the figure that decided it.
//
//	make accept AREA=foundation
//	go run ./tests/accept -area foundation -run nagle -o json
//
// Checks run one after another, since they measure. It exits with 0 when all
// passed, 1 when one failed, 2 when there was nothing to check. It refuses to
// judge by looking into the code: a check calls programs and reads their output.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var status int
	var err error
	switch {
	case len(os.Args) > 2 && os.Args[1] == deprivedArgument:
		status, err = 1, insideDeprived(os.Args[2], os.Args[3:])
	case len(os.Args) == 5 && os.Args[1] == insideShapes:
		if err = insideGuestTable(ctx, os.Args[2], os.Args[3], os.Args[4]); err != nil {
			status = 1
		}
	case len(os.Args) == 5 && os.Args[1] == insideArgument:
		var figure string
		if figure, err = insideKilled(ctx, os.Args[2], os.Args[3], os.Args[4]); err != nil {
			status = 1
		}
		fmt.Fprintln(os.Stdout, figure)
	default:
		status, err = accept(ctx, os.Args[1:], os.Stdout, os.Stderr, areas())
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "accept:", err)
	}
	os.Exit(status)
}

// accept parses the arguments, runs the checks that they choose and reports. The
// result alone goes to out, progress to progress.
func accept(ctx context.Context, args []string, out, progress io.Writer, all []Area) (int, error) {
	flags := flag.NewFlagSet("accept", flag.ContinueOnError)
	flags.SetOutput(progress)
	name := flags.String("area", "", "the area: "+names(all))
	pattern := flags.String("run", "", "only checks whose name matches this `regexp`")
	rows := flags.String("rows", "", "of checks that are tables only rows whose name matches this `regexp`")
	format := flags.String("o", "table", "table or json")
	list := flags.Bool("list", false, "name the checks and run none")
	if err := flags.Parse(args); err != nil {
		return 2, nil // the flag set has said it
	}
	match, err := regexp.Compile(*pattern)
	if err != nil {
		return 2, fmt.Errorf("-run: %w", err)
	}
	if *format != "table" && *format != "json" {
		return 2, fmt.Errorf("-o %s: it is table or json", *format)
	}
	checks, err := choose(all, *name, match)
	if err != nil {
		return 2, err
	}
	if *list {
		for _, check := range checks {
			fmt.Fprintln(out, check.Name)
		}
		return 0, nil
	}

	bench, err := newBench()
	if err != nil {
		return 1, err
	}
	defer bench.close()
	bench.Rows = *rows
	outcomes := run(ctx, bench, checks, progress)
	if *format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(outcomes); err != nil {
			return 1, fmt.Errorf("print the outcomes: %w", err)
		}
	} else {
		table(out, *name, outcomes)
	}
	for _, o := range outcomes {
		if !o.Passed {
			return 1, nil
		}
	}
	return 0, nil
}

// choose finds the area's checks that match.
func choose(all []Area, name string, match *regexp.Regexp) ([]Check, error) {
	for _, area := range all {
		if area.Name != name {
			continue
		}
		var chosen []Check
		for _, check := range area.Checks {
			if match.MatchString(check.Name) {
				chosen = append(chosen, check)
			}
		}
		if len(chosen) == 0 {
			return nil, fmt.Errorf("no check of %s matches %q; -list names them", name, match)
		}
		return chosen, nil
	}
	return nil, fmt.Errorf("no area %q; there are: %s", name, names(all))
}

func names(all []Area) string {
	var list []string
	for _, area := range all {
		list = append(list, area.Name)
	}
	return strings.Join(list, ", ")
}
