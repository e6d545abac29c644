// Package cli is the command line: one command a file, each a thin layer over
// the gRPC services that any other client could call. Results go to standard
// output, everything else to standard error.
//
// The embedded lab (embedded_linux.go) is the only place that knows
// controller and agent; commands see services. What a command cannot do on
// this system it refuses with what to do instead.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// Environment is what a command needs of the process it runs in.
type Environment struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	// Terminal says whether Err is a terminal to draw progress on.
	Terminal bool
	// Width is that of the terminal in columns, asked for again each time.
	Width func() int
	// Colour says whether Out takes colours.
	Colour bool
	// Signals delivers interrupts; nil: none ever comes.
	Signals <-chan os.Signal
	// Release gives signals back to the system, whose answer is to end the
	// process at once; nil: nothing to give back.
	Release func()
}

// Process is the environment of this process. It takes over SIGINT and
// SIGTERM until they are released.
func Process() *Environment {
	// A second signal finds the channel's buffer, never a blocked sender.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	env := &Environment{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Signals: signals, Release: func() { signal.Stop(signals) }}
	if term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb" {
		env.Terminal = true
		env.Width = func() int {
			if width, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil && width > 0 {
				return width
			}
			return 80
		}
	}
	env.Colour = term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return env
}

// app is one invocation: the environment and the flags that every command has.
type app struct {
	*Environment
	errs      *terminal // Err, with the line that shows progress
	stateDir  string
	context   string // the context that is asked for; empty: the one that was chosen
	logLevel  string
	logFormat string
	log       *slog.Logger
}

// Main runs the command line and returns the exit status.
func Main(args []string, env *Environment) int {
	if status, is := firstOfGuest(); is {
		return status
	}
	if status, is := firstOfProgram(); is {
		return status
	}
	a := &app{Environment: env, errs: &terminal{w: env.Err}, log: slog.New(slog.DiscardHandler)}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return a.exitStatus(root.ExecuteContext(ctx))
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tcplab",
		Short: "A network lab that you can trust",
		Long: `tcplab builds a declared lab from real Linux network stacks, proves its links,
runs TCP experiments over them, measures both ends, and says whether the
measurement agrees with the prediction.`,
		Example: `  tcplab run handshake              # measure a lab that is built in
  tcplab run nagle --set rtt=1ms    # another one, at another point
  tcplab run ./mine.yaml            # your own
  tcplab up handshake               # have one stand, to use it: exec, link, down
  tcplab run handshake --virtual    # in virtual time: exact, and faster than the clock
  tcplab doctor                     # what this machine can do`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          groupArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.context == "" {
				a.context = a.Getenv(contextVar)
			}
			return a.openLog()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%v; see `%s --help`", flagError(err), cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.stateDir, "state-dir", "", "where runs are kept (default /var/lib/tcplab for root, else $XDG_STATE_HOME/tcplab)")
	flags.StringVar(&a.context, "context", "", "the controller to speak to: the `name` of a context (default: the one that was chosen)")
	flags.StringVar(&a.logLevel, "log-level", "warn", "least level of the log on standard error: debug, info, warn or error")
	flags.StringVar(&a.logFormat, "log-format", "text", "form of the log: text or json")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(a.helpCommand())
	root.AddCommand(a.runCommand(), a.runsCommand(), a.captureCommand(), a.labCommand(), a.theoryCommand(),
		a.upCommand(), a.psCommand(), a.execCommand(), a.linkCommand(), a.downCommand(), a.holdCommand(),
		a.doctorCommand(), a.kernelCommand(), a.versionCommand(), a.completionCommand())
	root.AddCommand(a.contextCommand(), a.hostsCommand(), a.userCommand(), a.tokenCommand(), a.auditCommand(),
		a.controllerCommand(), a.agentCommand(), a.apiCommand())
	root.AddCommand(a.watchdogCommand())
	return root
}

// flagError says of a wrong value what was meant, and not what the parser of
// numbers said.
func flagError(err error) error {
	invalid, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	want := invalid.Unwrap().Error()
	switch invalid.GetFlag().Value.Type() {
	case "uint32", "int32", "uint64":
		want = "want a whole number"
	case "duration":
		want = "want a time, such as 90s or 5m"
	}
	return fmt.Errorf("--%s %q: %s", invalid.GetFlag().Name, invalid.GetValue(), want)
}

// openLog makes the logger that the flags ask for.
func (a *app) openLog() error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return usageError("--log-level %q: want debug, info, warn or error", a.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch a.logFormat {
	case "text":
		a.log = slog.New(slog.NewTextHandler(a.errs, options))
	case "json":
		a.log = slog.New(slog.NewJSONHandler(a.errs, options))
	default:
		return usageError("--log-format %q: want text or json", a.logFormat)
	}
	return nil
}

// exactArgs wants n arguments, and says which when they are not there.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return usageError("`%s` takes no argument, and got %q", cmd.CommandPath(), args[0])
		}
		return usageError("`%s` takes %s; see `%s --help`", cmd.CommandPath(), strings.Join(names, " and "), cmd.CommandPath())
	}
}

// style renders text for standard output, plain where it takes no colour.
func (a *app) style(s lipgloss.Style, text string) string {
	if !a.Colour {
		return text
	}
	return s.Render(text)
}

// version is the module's version as the build recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v == "devel" && len(s.Value) >= 12 {
			v += "-" + s.Value[:12]
		}
	}
	return v
}

// errInterrupted says that a signal ended the command.
var errInterrupted = errors.New("interrupted")

// printf writes to standard error, where nothing is done about a failure.
func (a *app) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.errs, format, args...)
}
