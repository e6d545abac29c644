package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// virtual is labs in virtual time. It takes the guest kernel: tcplab kernel build.
func virtual() Area {
	return Area{Name: "virtual", Checks: []Check{
		{
			Name:  "all labs as an ordinary user with one core kept busy: 20 times of 20, 1% where theory is exact, 0.1% spread of every time",
			Limit: 40 * time.Minute, Run: allLabsVirtually,
		},
		{Name: "a sweep of 200 points of slow-start matches theory on every point within 90 s", Run: sweptVirtually},
		{Name: "natively and in virtual time: one form of report, and the same verdicts", Run: bothClocks},
		{Name: "SIGINT and kill -9 of a run in virtual time leave no process, and no file after the next start", Run: virtualEnded},
	}}
}

// ordinary is a user without any privilege.
type ordinary struct {
	*Bench
	dir string
}

// nobodyID is the user and group that nobody is (Debian's base-passwd).
const nobodyID = 65534

// asNobody gives an ordinary user a folder.
func (b *Bench) asNobody() (*ordinary, error) {
	o := &ordinary{Bench: b, dir: filepath.Join(b.Dir, "nobody")}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return nil, err
	}
	return o, errors.Join(os.Chmod(b.Dir, 0o711), os.Chown(o.dir, nobodyID, nobodyID))
}

// command is tcplab as that user.
func (o *ordinary) command(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, o.Tcplab, args...)
	command.Dir = "/"
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + o.dir, "TCPLAB_STATE_DIR=" + filepath.Join(o.dir, "state"), "TCPLAB_RUNTIME_DIR=" + filepath.Join(o.dir, "run")}
	if kernels := os.Getenv("TCPLAB_KERNEL_DIR"); kernels != "" {
		command.Env = append(command.Env, "TCPLAB_KERNEL_DIR="+kernels)
	}
	if os.Geteuid() == 0 {
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID}}
	}
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 5 * time.Second
	return command
}

// run runs tcplab as that user.
func (o *ordinary) run(ctx context.Context, args ...string) (Result, error) {
	var out, diagnostics bytes.Buffer
	command := o.command(ctx, args...)
	command.Stdout, command.Stderr = &out, &diagnostics
	start := time.Now()
	err := command.Run()
	result := Result{Stdout: out.String(), Stderr: diagnostics.String(), Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return result, fmt.Errorf("run tcplab: %w", ctx.Err())
	case errors.As(err, &exit):
		result.Status = exit.ExitCode()
	case err != nil:
		return result, fmt.Errorf("run tcplab: %w", err)
	}
	return result, nil
}

// busyCore keeps one core busy until stop.
func busyCore(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	busy := exec.CommandContext(ctx, "/bin/sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("keep a core busy: %w", err)
	}
	return func() {
		cancel()
		_ = busy.Wait() // it was killed
	}, nil
}

// times20 is how often each lab is run.
const times20 = 20

func allLabsVirtually(ctx context.Context, b *Bench) (string, error) {
	o, err := b.asNobody()
	if err != nil {
		return "", err
	}
	stop, err := busyCore(ctx)
	if err != nil {
		return "", err
	}
	defer stop()
	var figures, wrong []string
	for _, info := range labs.List() {
		figure, err := virtualLab(ctx, o, info.Name)
		figures = append(figures, info.Name+" "+figure)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", info.Name, err))
		}
	}
	if len(wrong) > 0 {
		err = errors.New(strings.Join(wrong, "; "))
	}
	return strings.Join(figures, ", "), err
}

// virtualLab runs a lab twenty times with one seed and holds the times against theory and against one another.
func virtualLab(ctx context.Context, o *ordinary, lab string) (string, error) {
	all := make(map[string][]float64)
	passed := 0
	farthest, farthestName := 0.0, ""
	var first error
	for range times20 {
		result, err := o.run(ctx, "run", lab, "--virtual", "--seed", "7", "--repeat", "1", "-o", "json")
		if err != nil {
			return "", err
		}
		report, err := passing(result, "")
		if err != nil {
			first = errors.Join(first, err)
			continue
		}
		passed++
		for _, e := range report.GetExpectations() {
			if off := math.Abs(e.GetMeasured()-e.GetPredicted()) / e.GetPredicted(); exact(e) && off > farthest {
				farthest, farthestName = off, e.GetName()
			}
		}
		for name, seconds := range timesOf(report) {
			all[name] = append(all[name], seconds)
		}
	}
	widest, widestName := 0.0, ""
	for name, seconds := range all {
		if spread := (slices.Max(seconds) - slices.Min(seconds)) / slices.Max(seconds); spread > widest {
			widest, widestName = spread, name
		}
	}
	figure := fmt.Sprintf("%d of %d, %.2g%% from theory, %.2g%% spread of %d times", passed, times20, 100*farthest, 100*widest, len(all))
	switch {
	case first != nil:
		return figure, first
	case farthest > 0.01:
		return figure, fmt.Errorf("%q is %.2g%% from theory", farthestName, 100*farthest)
	case widest > 0.001:
		return figure, fmt.Errorf("%s has a spread of %.2g%%: %v to %v s", widestName, 100*widest, slices.Min(all[widestName]), slices.Max(all[widestName]))
	}
	return figure, nil
}

// exact reports whether theory gives the very time that is expected, and no timer of the kernel's or
// a bound or a chance has a part in it: such an expectation permits a slack beside its ratio, or more than 5%.
func exact(e *tcplabv1.ExpectationResult) bool {
	return e.GetUnit() == "s" && e.GetPredicted() > 0 && e.GetPermitted() > 0 && e.GetPermitted() <= 0.0501*e.GetPredicted()
}

// timesOf is every time in the report's flows that was measured, by its place.
func timesOf(report *tcplabv1.RunReport) map[string]float64 {
	all := make(map[string]float64)
	for i, trial := range report.GetTrials() {
		for _, flow := range trial.GetFlows() {
			add := func(what string, d *durationpb.Duration) {
				if d.AsDuration() > 0 {
					all[fmt.Sprintf("trial %d %s.%s", i+1, flow.GetName(), what)] = d.AsDuration().Seconds()
				}
			}
			for what, summary := range map[string]*tcplabv1.LatencySummary{"connect": flow.GetConnect(), "latency": flow.GetLatency()} {
				add(what+".min", summary.GetMin())
				add(what+".p50", summary.GetP50())
				add(what+".max", summary.GetMax())
			}
			if rate := flow.GetGoodputBps(); rate > 0 {
				all[fmt.Sprintf("trial %d %s.goodput", i+1, flow.GetName())] = 1 / rate
			}
		}
	}
	return all
}

// sweptVirtually runs slow-start at 20 round trips and 10 sizes. The rate is one at which serialization is small beside 1 ms:
// an idle bottleneck of netem's lets a millisecond of its rate through at once, which theory does not.
func sweptVirtually(ctx context.Context, b *Bench) (string, error) {
	const rtts = "1ms,2ms,3ms,5ms,7ms,10ms,15ms,20ms,25ms,30ms,40ms,50ms,60ms,80ms,100ms,150ms,200ms,300ms,400ms,500ms"
	const sizes = "2000B,5000B,14480B,14481B,30000B,43440B,43441B,70000B,101360B,101361B"
	o, err := b.asNobody()
	if err != nil {
		return "", err
	}
	result, err := o.run(ctx, "run", "slow-start", "--virtual", "--repeat", "1", "--set", "rtt="+rtts, "--set", "bytes="+sizes, "--set", "rate=10Gbit", "-o", "json")
	if err != nil {
		return "", err
	}
	report, err := reportOf(result)
	if err != nil {
		return "", err
	}
	points, within := make(map[string]bool), 0
	for _, e := range report.GetExpectations() {
		if e.GetName() != "the page takes the handshake and a round trip for each window" {
			continue
		}
		points[fmt.Sprint(e.GetPoint())] = true
		if e.GetVerdict() == tcplabv1.Verdict_VERDICT_PASSED {
			within++
		}
	}
	figure := fmt.Sprintf("%d of %d points match theory, in %.1f s", within, len(points), result.Took.Seconds())
	_, err = passing(result, "netem")
	switch {
	case err != nil:
		return figure, err
	case len(points) != 200 || within != 200:
		return figure, errors.New("a point is missing, or none of theory's")
	case result.Took > 90*time.Second:
		return figure, errors.New("more than 90 s")
	}
	return figure, nil
}

// bothClocks runs a lab by both clocks, and wants the same fields and the same verdicts.
func bothClocks(ctx context.Context, b *Bench) (string, error) {
	verdicts := func(args ...string) (map[string]tcplabv1.Verdict, []string, error) {
		result, err := b.Run(ctx, append([]string{"run", "handshake", "--seed", "7", "-o", "json"}, args...)...)
		if err != nil {
			return nil, nil, err
		}
		report, err := passing(result, "")
		if err != nil {
			return nil, nil, err
		}
		all := make(map[string]tcplabv1.Verdict)
		for _, e := range report.GetExpectations() {
			all[e.GetName()] = e.GetVerdict()
		}
		var fields []string
		for line := range strings.Lines(result.Stdout) {
			if name, ok := strings.CutPrefix(line, `  "`); ok {
				name, _, _ = strings.Cut(name, `"`)
				fields = append(fields, name)
			}
		}
		return all, fields, nil
	}
	native, nativeFields, err := verdicts()
	if err != nil {
		return "", err
	}
	inVirtual, virtualFields, err := verdicts("--virtual")
	if err != nil {
		return "", err
	}
	figure := fmt.Sprintf("%d verdicts, %d fields", len(inVirtual), len(virtualFields))
	for name, verdict := range native {
		if inVirtual[name] != verdict {
			return figure, fmt.Errorf("%q: %v natively, %v in virtual time", name, verdict, inVirtual[name])
		}
	}
	if len(native) != len(inVirtual) || !slices.Equal(nativeFields, virtualFields) {
		return figure, fmt.Errorf("fields %v natively, %v in virtual time", nativeFields, virtualFields)
	}
	return figure, nil
}

// virtualEnded interrupts and kills runs, and looks for what they left.
func virtualEnded(ctx context.Context, b *Bench) (string, error) {
	const each = 10
	o, err := b.asNobody()
	if err != nil {
		return "", err
	}
	guests := filepath.Join(o.dir, "state", "guests")
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		for n := range each {
			command := o.command(ctx, "run", "slow-start", "--virtual", "--repeat", "20")
			if err := command.Start(); err != nil {
				return "", err
			}
			// At another moment of a guest's life each time.
			select {
			case <-time.After(time.Duration(150+100*n) * time.Millisecond):
			case <-ctx.Done():
			}
			if err := command.Process.Signal(signal); err != nil {
				return "", err
			}
			told := time.Now()
			_ = command.Wait() // how it ended is asked below
			if took := time.Since(told); signal == syscall.SIGINT && (command.ProcessState.ExitCode() != 130 || took > 1500*time.Millisecond) {
				return "", fmt.Errorf("interrupted it exits %d, after %v", command.ProcessState.ExitCode(), took)
			}
			if err := goneSoon(ctx, guests); err != nil {
				return "", fmt.Errorf("%v, %d: %w", signal, n, err)
			}
			if _, err := os.Stat(guests); signal == syscall.SIGINT && !errors.Is(err, os.ErrNotExist) {
				return "", fmt.Errorf("interrupted it leaves %s", guests)
			}
		}
	}
	result, err := o.run(ctx, "run", "handshake", "--virtual", "--repeat", "1", "-o", "json")
	if err != nil {
		return "", err
	}
	if _, err := passing(result, "netem"); err != nil {
		return "", fmt.Errorf("the next run: %w", err)
	}
	if _, err := os.Stat(guests); !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("the next run leaves %s", guests)
	}
	return fmt.Sprintf("%d runs interrupted, %d killed", each, each), nil
}

// goneSoon waits until no process has the folder of guests among its arguments, nor belongs to nobody and was started
// by a guest's kernel.
func goneSoon(ctx context.Context, guests string) error {
	for deadline := time.Now().Add(goneWithin); ; {
		left := ""
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, path := range processes {
			if args, err := os.ReadFile(path); err == nil && bytes.Contains(args, []byte("uml_dir="+guests)) {
				left = filepath.Dir(path)
			}
		}
		switch {
		case left == "":
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("a guest's kernel is left: %s", left)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
