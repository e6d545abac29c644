// Command bench measures how fast and how true tcplab is, beside the tools that
// people would otherwise use, in one run on one machine, and prints one table:
// the figure, its target, the peer's figure.
//
//	make bench
//	go run ./tests/bench -run wire -o json
//
// Each measurement is done five times. It needs root, and exits with 0 when every figure met
// its target, 1 when one did not, 2 when there was nothing to measure. All
// traffic stays in namespaces that it made and that end with it. It refuses to
// be a test: what it prints depends on the machine, and says on which, and how
// busy it was.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	guests "github.com/tcplab/tcplab/agent/virtual"
	"github.com/tcplab/tcplab/internal/uml"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// limit bounds a whole run.
const limit = 20 * time.Minute

func main() {
	uml.Init()
	if guests.IsGuest() {
		os.Exit(guests.Guest())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	status, err := bench(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(status)
}

// inGuests are the measurements that want a kernel with netem.
func inGuests() []Measurement {
	const name = "netem in user-mode Linux"
	// A guest's sender takes 0.2 ms for a datagram, 60 Mbit/s; the kernel's tick is 10 ms.
	return []Measurement{ready(name, newNetem, Target{}), queue(name, newNetem), fidelity(name, newNetem, 1e7, 10)}
}

// measurements are all that there are, in the order of the table.
func measurements(tcplab string) []Measurement {
	guests := inGuests()
	return []Measurement{
		command(tcplab),
		ready("wire", newWire, atMost(20)),
		star(tcplabv1.NodeKind_NODE_KIND_SWITCH, "switch"),
		star(tcplabv1.NodeKind_NODE_KIND_ROUTER, "router"),
		inGuest(guests[0]),
		qdiscs(),
		guestQdiscs(),
		idle(),
		throughput(),
		packetRate(),
		superPackets(),
		hostInterface(),
		lateness(),
		queue("wire", newWire),
		inGuest(guests[1]),
		fidelity("wire", newWire, 1e9, 0.2),
		inGuest(guests[2]),
		unshaped(),
		bulkBeside(1),
		bulkBeside(8),
		roundTrip(),
		connects(),
		httpLoad(),
		idleConnections(),
		sampling(),
		virtualTime(),
	}
}

// bench parses the arguments, measures what they choose and reports. The report
// alone goes to out.
func bench(ctx context.Context, args []string, out, progress io.Writer) (int, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	pattern := flags.String("run", "", "only measurements whose name matches this `regexp`")
	format := flags.String("o", "table", "table, json or markdown")
	times := flags.Int("times", 5, "how often each measurement is done")
	tcplab := flags.String("tcplab", filepath.Join("bin", "tcplab"), "the `program`, built")
	guest := flags.String("inside", "", "do the measurement of this `name` once, and print its figures; for the part in a guest")
	if err := flags.Parse(args); err != nil {
		return 2, nil // the flag set has said it
	}
	if *guest != "" {
		if err := inside(ctx, inGuests(), *guest); err != nil {
			return 1, err
		}
		return 0, nil
	}
	match, err := regexp.Compile(*pattern)
	if err != nil {
		return 2, fmt.Errorf("-run: %w", err)
	}
	var chosen []Measurement
	for _, m := range measurements(*tcplab) {
		if match.MatchString(m.Name) {
			chosen = append(chosen, m)
		}
	}
	write := map[string]func(Report, io.Writer) error{"table": Report.table, "json": Report.json, "markdown": Report.markdown}[*format]
	switch {
	case write == nil:
		return 2, fmt.Errorf("-o %s: it is table, json or markdown", *format)
	case *times < 1:
		return 2, errors.New("-times: once at least")
	case len(chosen) == 0:
		return 2, fmt.Errorf("no measurement matches %q", *pattern)
	}
	m, err := machine()
	if err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the whole run took more than %v", limit))
	defer cancel()
	report := Report{Machine: m, Times: *times, Notes: notes(chosen), Outcomes: run(ctx, chosen, *times, progress)}
	if err := write(report, out); err != nil {
		return 1, fmt.Errorf("print the figures: %w", err)
	}
	if !report.passed() {
		return 1, nil
	}
	return 0, nil
}

// machine describes this one, as it is before the first measurement.
func machine() (Machine, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Machine{}, fmt.Errorf("ask for the kernel's name: %w", err)
	}
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return Machine{}, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return Machine{}, fmt.Errorf("read /proc/loadavg: %w", err)
	}
	return Machine{Kernel: unix.ByteSliceToString(name.Release[:]), CPUs: runtime.NumCPU(), Load: load, Go: runtime.Version()}, nil
}

// notes are what a reader of the table must know beside it, each once.
func notes(chosen []Measurement) []string {
	all := []string{"Counts must meet their target each time, all else by the median. Flows and iperf3 use " + congestion + "."}
	for _, m := range chosen {
		if m.Setup != "" && !slices.Contains(all, m.Setup) {
			all = append(all, m.Setup)
		}
	}
	if _, err := exec.LookPath("mm-delay"); err != nil {
		all = append(all, "mahimahi's mm-delay, the other userspace link, is not installed here, and Debian 12 has no package of it: "+
			"iperf3 over the same wire link is another generator, not another link.")
	}
	return all
}
