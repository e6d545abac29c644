package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// stopWithin bounds how long a run may take to stop once it was told to.
const stopWithin = 900 * time.Millisecond

type runFlags struct {
	set     []string
	repeat  uint32
	engine  string
	seed    uint64
	timeout time.Duration
	labels  []string
	wait    time.Duration
	dryRun  bool
	keep    bool
	exec    execFlag
	virtual string
	output  format
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run LAB|FILE",
		Short: "Build a lab, measure it, and judge it against its predictions",
		Long: `Run builds the lab's nodes and links, proves that each link does what the lab
says, runs the experiments at each parameter point, and prints what was
measured beside what was predicted. Nothing is left behind, however it ends.

LAB is the name of a lab that is built in (tcplab lab list); FILE is a lab file,
recognised by a slash, a dot or "-" for standard input.

A lab file whose exec flows run programs of this host needs --allow-exec: what
you have not read may do what any program may that nobody started.
--allow-exec=root lets those that ask for it run as root.

With --virtual each trial runs in a guest kernel whose clock jumps while all wait
and stands still while a program runs: the same TCP and netem, exact, untouched by
what else the machine does, without root, and trials of a sweep in parallel. The
guest kernel is built once (tcplab kernel build). --virtual=relaxed lets the clock
go on while programs run, for those that poll it.

Exit status: 0 all expectations hold; 1 one does not; 2 wrong usage or lab;
3 this host cannot run it; 4 a trial could not be carried out, or a link was
not what it should be; 130 interrupted.`,
		Example: `  tcplab run handshake
  tcplab run nagle --set rtt=1ms,20ms --repeat 3
  tcplab run ./mine.yaml --dry-run
  tcplab run slow-start --virtual --set rtt=1ms,10ms,100ms
  tcplab run slow-start -o json | jq .verdict`,
		Args: exactArgs("the name of a lab or a lab file"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return labNames(), cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd.Context(), args[0], &f)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.set, "set", nil, "`name=value[,value...]` of a parameter; several values are swept")
	flags.Uint32Var(&f.repeat, "repeat", 0, "repetitions of each parameter point (default: as the lab says)")
	flags.StringVar(&f.engine, "engine", "auto", "what shapes the links: auto, netem or wire")
	flags.Uint64Var(&f.seed, "seed", 0, "seed of everything random (default: drawn, and printed in the report)")
	flags.DurationVar(&f.timeout, "timeout", 0, "stop the run and fail after this long (default: one that the plan cannot reach)")
	flags.StringArrayVar(&f.labels, "label", nil, "`name=value` to find the run by")
	flags.DurationVar(&f.wait, "wait", time.Hour, "how long to wait for another run on this host to end; 0 fails at once")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the plan, the topology and the time needed, and do nothing")
	flags.BoolVar(&f.keep, "keep", false, "after a failure, hold the nodes to look around until interrupted")
	flags.Var(&f.exec, "allow-exec", "let the lab's exec flows start programs of this host, as `nobody` or as root too")
	flags.Lookup("allow-exec").NoOptDefVal = "nobody"
	flags.StringVar(&f.virtual, "virtual", "", "run in virtual time: exact, or relaxed for programs that poll the clock")
	flags.Lookup("virtual").NoOptDefVal = "exact"
	outputFlag(cmd, &f.output)
	_ = cmd.RegisterFlagCompletionFunc("virtual", cobra.FixedCompletions([]string{"exact", "relaxed"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions([]string{"auto", "netem", "wire"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) run(ctx context.Context, arg string, f *runFlags) error {
	overrides, err := parseOverrides(f.set)
	if err != nil {
		return err
	}
	options, err := f.options()
	if err != nil {
		return err
	}
	// A mistake is told before waiting for a turn or asking for privilege.
	file, err := a.labFile(arg, overrides)
	if err != nil {
		return err
	}
	if _, err := file.Expand(overrides); err != nil {
		return err
	}
	if !f.dryRun {
		if err := file.Permit(overrides, options.GetExec()); err != nil {
			return err
		}
	}
	source := file.Source()
	sent := labSourceMessage(source)
	params := make([]*tcplabv1.ParamOverride, len(overrides))
	for i, o := range overrides {
		params[i] = &tcplabv1.ParamOverride{Name: o.Name, Values: o.Values}
	}
	stdin := a.In
	if arg == "-" {
		stdin = bytes.NewReader(source.Content)
	}
	if f.dryRun {
		return a.dryRun(ctx, f, stdin, &tcplabv1.PlanRunRequest{
			LabSource: &tcplabv1.PlanRunRequest_Source{Source: sent}, Overrides: params, Options: options,
		})
	}
	remote, err := a.openContext(ctx)
	if err != nil {
		return err
	}
	if remote == nil && f.virtual == "" { // a guest's root is its own
		if status, entered, err := a.enterUserNamespace(ctx, stdin); entered || err != nil {
			if err == nil && status != 0 {
				err = &statusError{status: status}
			}
			return err
		}
	}

	// Signals end the wait for a turn here, and the run below.
	waiting, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	interrupted := make(chan struct{})
	go func() {
		select {
		case <-a.Signals:
			close(interrupted)
			stopWaiting()
			if a.Release != nil {
				// Should the stop hang, the next signal ends it.
				time.AfterFunc(stopWithin, a.Release)
			}
		case <-ctx.Done():
		}
	}()
	lab, err := a.openRuns(waiting, remote, f.wait)
	if err != nil {
		if isClosed(interrupted) {
			if a.Terminal {
				a.printf(wipe) // the terminal's ^C
			}
			return errInterrupted
		}
		return err
	}
	planned, err := lab.runs.PlanRun(ctx, &tcplabv1.PlanRunRequest{
		LabSource: &tcplabv1.PlanRunRequest_Source{Source: sent}, Overrides: params, Options: options,
	})
	if err != nil {
		return errors.Join(err, lab.close())
	}
	created, err := lab.runs.CreateRun(ctx, &tcplabv1.CreateRunRequest{
		RequestId: rand.Text(), LabSource: &tcplabv1.CreateRunRequest_Source{Source: sent}, Overrides: params, Options: options,
	})
	if err != nil {
		return errors.Join(err, lab.close())
	}
	report, run, err := a.follow(ctx, lab.runs, created.GetRun(), planned.GetPlan(), interrupted)
	if closeErr := lab.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := a.printReport(report, f.output); err != nil {
		return err
	}
	status := runStatus(run)
	switch {
	case status == exitOK:
		return nil
	case run.GetState() == tcplabv1.RunState_RUN_STATE_CANCELLED:
		return &statusError{status: status} // the report says it
	}
	// A verdict stands in the report; a failure has words of its own.
	message := run.GetFailure()
	if message != "" {
		message = run.GetId() + ": " + message
	}
	return &statusError{status: status, message: message, remedy: run.GetRemedy()}
}

// openRuns is who carries a run out: the context's controller, or the embedded lab, whose state directory is
// waited for.
func (a *app) openRuns(ctx context.Context, remote *connection, wait time.Duration) (*embedded, error) {
	if remote != nil {
		return &embedded{runs: remote.runs, labs: remote.labs, close: remote.conn.Close}, nil
	}
	return a.openEmbedded(ctx, embeddedOptions{drive: true, wait: wait})
}

// follow shows a run's progress to its end, and then reads what it found. An
// interrupt cancels the run and waits until that is stored.
func (a *app) follow(ctx context.Context, runs tcplabv1.RunServiceClient, run *tcplabv1.Run, plan *tcplabv1.RunPlan, interrupted <-chan struct{}) (*tcplabv1.RunReport, *tcplabv1.Run, error) {
	progress := a.newProgress(run, plan)
	defer progress.close()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	cancelled := make(chan error, 1)
	go func() {
		select {
		case <-watching.Done():
			return
		case <-interrupted:
		}
		progress.stopping()
		_, err := runs.CancelRun(watching, &tcplabv1.CancelRunRequest{RunId: run.GetId()})
		cancelled <- err
		select {
		case <-watching.Done():
		case <-time.After(stopWithin):
			stop()
		}
	}()
	if a.Terminal {
		var live sync.WaitGroup
		defer func() {
			stop()
			live.Wait()
		}()
		live.Go(func() { a.followSamples(watching, runs, run.GetId(), progress) })
	}
	stream, err := runs.WatchRun(watching, &tcplabv1.WatchRunRequest{RunId: run.GetId()})
	if err != nil {
		return nil, nil, err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if isClosed(interrupted) {
				return nil, nil, errInterrupted
			}
			return nil, nil, fmt.Errorf("watch run %s: %w", run.GetId(), err)
		}
		if changed := response.GetEvent().GetRun(); changed != nil {
			run = changed
		}
		progress.show(response.GetEvent())
	}
	progress.close()
	select {
	case err := <-cancelled:
		if err != nil {
			a.log.Warn("cancel", "run", run.GetId(), "error", err)
		}
	default:
	}
	report, err := runs.GetRunReport(ctx, &tcplabv1.GetRunReportRequest{RunId: run.GetId()})
	if err != nil {
		return nil, nil, fmt.Errorf("read the report of run %s: %w", run.GetId(), err)
	}
	return report.GetReport(), run, nil
}

// followSamples shows what flows do at this moment, until the run has ended or ctx.
func (a *app) followSamples(ctx context.Context, runs tcplabv1.RunServiceClient, run string, progress *progress) {
	stream, err := runs.WatchSamples(ctx, &tcplabv1.WatchSamplesRequest{RunId: run, Interval: durationpb.New(liveEvery)})
	for err == nil {
		var news *tcplabv1.WatchSamplesResponse
		if news, err = stream.Recv(); err == nil {
			progress.live(news.GetSamples())
		}
	}
	if !errors.Is(err, io.EOF) && ctx.Err() == nil {
		// The run goes on without a view.
		a.log.Debug("watch samples", "run", run, "error", err)
	}
}

// liveEvery is how often a terminal shows what flows do: as often as one can read it.
const liveEvery = 250 * time.Millisecond

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func parseOverrides(set []string) ([]labs.Override, error) {
	var overrides []labs.Override
	for _, s := range set {
		name, values, ok := strings.Cut(s, "=")
		if !ok || name == "" || values == "" {
			return nil, usageError("--set %q: want name=value or name=value,value", s)
		}
		overrides = append(overrides, labs.Override{Name: name, Values: strings.Split(values, ",")})
	}
	return overrides, nil
}

// maxRepeat is RunOptions.repeat's upper bound.
const maxRepeat = 1000

func (f *runFlags) options() (*tcplabv1.RunOptions, error) {
	options := &tcplabv1.RunOptions{Repeat: f.repeat, Seed: f.seed, Keep: f.keep, Exec: tcplabv1.ExecPermission(f.exec)}
	switch f.engine {
	case "auto":
		options.Engine = tcplabv1.Engine_ENGINE_AUTO
	case "netem":
		options.Engine = tcplabv1.Engine_ENGINE_NETEM
	case "wire":
		options.Engine = tcplabv1.Engine_ENGINE_WIRE
	default:
		return nil, usageError("--engine %q: want auto, netem or wire", f.engine)
	}
	switch f.virtual {
	case "":
	case "exact":
		options.Time = tcplabv1.TimeMode_TIME_MODE_VIRTUAL
	case "relaxed":
		options.Time = tcplabv1.TimeMode_TIME_MODE_RELAXED
	default:
		return nil, usageError("--virtual=%s: want exact or relaxed", f.virtual)
	}
	if f.repeat > maxRepeat {
		return nil, usageError("--repeat %d: want at most %d", f.repeat, maxRepeat)
	}
	if f.timeout < 0 {
		return nil, usageError("--timeout %v: want a time above 0", f.timeout)
	}
	if f.wait < 0 {
		return nil, usageError("--wait %v: want 0 or more", f.wait)
	}
	if f.timeout > 0 {
		options.Timeout = durationpb.New(f.timeout)
	}
	for _, label := range f.labels {
		name, value, ok := strings.Cut(label, "=")
		if !ok || name == "" {
			return nil, usageError("--label %q: want name=value", label)
		}
		if options.Labels == nil {
			options.Labels = map[string]string{}
		}
		options.Labels[name] = value
	}
	return options, nil
}
