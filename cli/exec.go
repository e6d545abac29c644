package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

type execFlags struct {
	env []string
	dir string
	tty string
}

func (a *app) execCommand() *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:   "exec LAB NODE [--] [PROGRAM ARGUMENT...]",
		Short: "Run a program in a node of a standing lab",
		Long: `Exec runs any program of this machine in a node: it has the node's network, names
of nodes resolve, and it has process IDs, mounts, /proc and /sys of its own. It
runs as root there, on this machine's files, in this folder. All that it starts
ends with it, with this command, and with the lab. Without a program it is a shell.

Where standard input and output are a terminal the program has one too. Else
they are pipes, and signals go to the program.

Exit status: the program's; 128 and the number of the signal that ended it; 127
where there is no such program, 126 where it cannot be run. tcplab's own: 2 wrong
usage or no such lab, 3 this host cannot do it, 4 the lab went meanwhile.`,
		Example: `  tcplab exec handshake client
  tcplab exec handshake client -- getent hosts server
  tcplab exec handshake client -- ip -brief address | grep eth0
  tcplab exec --env LANG=C handshake server -- date`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError("`%s` takes a standing lab, a node and a program; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return a.completeStanding(cmd, args, typed)
			case 1:
				return a.completeNodes(cmd.Context(), args[0])
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.exec(cmd.Context(), args[0], args[1], args[2:], &f)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the lab's name is the program's
	flags.StringArrayVar(&f.env, "env", nil, "`NAME=value` in the program's environment; NAME alone takes it from this one")
	flags.StringVar(&f.dir, "dir", "", "folder to start it in (default: this one)")
	flags.StringVar(&f.tty, "tty", "auto", "whether it has a terminal: auto, yes or no")
	_ = cmd.RegisterFlagCompletionFunc("tty", cobra.FixedCompletions([]string{"auto", "yes", "no"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// completeNodes completes the names of a standing lab's nodes.
func (a *app) completeNodes(ctx context.Context, lab string) (names []string, _ cobra.ShellCompDirective) {
	err := a.withStanding(ctx, lab, func(labs tcplabv1.LabServiceClient) error {
		got, err := labs.GetDeployment(ctx, &tcplabv1.GetDeploymentRequest{Name: lab})
		for _, n := range got.GetDeployment().GetNodes() {
			names = append(names, n.GetName())
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) exec(ctx context.Context, lab, node string, argv []string, f *execFlags) error {
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) == 0 {
		argv = []string{"/bin/sh"}
		if shell := a.Getenv("SHELL"); shell != "" {
			argv[0] = shell
		}
	}
	program := &tcplabv1.Program{Node: node, Argv: argv, Dir: f.dir, Env: make(map[string]string)}
	if f.dir == "" && a.onThisMachine() {
		dir, err := os.Getwd()
		if err != nil {
			return fmt.Errorf("find this folder: %w", err)
		}
		program.Dir = dir
	}
	terminal, err := a.wantsTerminal(f.tty)
	if err != nil {
		return err
	}
	if err := a.programEnvironment(program.Env, f.env, terminal != nil); err != nil {
		return err
	}
	return a.withStanding(ctx, lab, func(labs tcplabv1.LabServiceClient) error {
		s, err := a.startSession(ctx, labs, lab, program, terminal)
		if err != nil {
			return err
		}
		return s.run(a)
	})
}

// wantsTerminal is the terminal that the program shall have one like; nil: none.
func (a *app) wantsTerminal(mode string) (*os.File, error) {
	in, ok := a.In.(*os.File)
	ok = ok && term.IsTerminal(int(in.Fd()))
	switch mode {
	case "yes":
		if !ok {
			return nil, usageError("--tty yes: standard input is no terminal")
		}
		return in, nil
	case "auto":
		// Where the output goes on to a pipe or file it is not to be a terminal's.
		if out, isFile := a.Out.(*os.File); ok && isFile && term.IsTerminal(int(out.Fd())) {
			return in, nil
		}
		return nil, nil
	case "no":
		return nil, nil
	}
	return nil, usageError("--tty %q: want auto, yes or no", mode)
}

// programEnvironment adds what goes on to the program: the language, the terminal's kind, and what is asked.
func (a *app) programEnvironment(env map[string]string, asked []string, terminal bool) error {
	names := []string{"LANG", "LC_ALL", "LC_CTYPE", "TZ"}
	if terminal {
		names = append(names, "TERM", "COLORTERM")
	}
	for _, name := range names {
		if value := a.Getenv(name); value != "" {
			env[name] = value
		}
	}
	for _, variable := range asked {
		name, value, given := strings.Cut(variable, "=")
		if name == "" {
			return usageError("--env %q: want NAME=value, or NAME", variable)
		}
		if !given {
			value = a.Getenv(name)
		}
		env[name] = value
	}
	return nil
}

// pieceSize is how much standard input is sent at once, and inputAhead how much at most before
// the program has taken it: signals wait behind more (ProgramInput.stdin).
const (
	pieceSize  = 32 << 10
	inputAhead = 16 * pieceSize
)

// killAfter is which signal is the last that a program is asked with.
const killAfter = 3

// session is a program that runs for this command.
type session struct {
	stream   tcplabv1.LabService_ExecClient
	terminal *os.File // nil: the program has none
	ahead    chan struct{}

	mu sync.Mutex // over sends
}

func (a *app) startSession(ctx context.Context, labs tcplabv1.LabServiceClient, lab string, program *tcplabv1.Program, terminal *os.File) (*session, error) {
	stream, err := labs.Exec(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{stream: stream, terminal: terminal, ahead: make(chan struct{}, inputAhead/pieceSize)}
	if terminal != nil {
		program.Terminal = sizeOf(terminal)
	}
	// What a failed Send has to say is said by Recv.
	_ = stream.Send(&tcplabv1.ExecRequest{Deployment: lab, Input: &tcplabv1.ProgramInput{Input: &tcplabv1.ProgramInput_Start{Start: program}}})
	return s, nil
}

// sizeOf is a terminal's size, or that of the oldest ones where it has none.
func sizeOf(terminal *os.File) *tcplabv1.TerminalSize {
	columns, rows, err := term.GetSize(int(terminal.Fd()))
	if err != nil || columns < 1 || rows < 1 {
		columns, rows = 80, 24
	}
	return &tcplabv1.TerminalSize{Columns: uint32(columns), Rows: uint32(rows)}
}

// send tells the program something. Where that fails the stream is over, and run knows it.
func (s *session) send(input *tcplabv1.ProgramInput) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.stream.Send(&tcplabv1.ExecRequest{Input: input})
}

// run carries what goes in and comes out until the program has ended.
func (s *session) run(a *app) error {
	ctx, cancel := context.WithCancel(s.stream.Context())
	defer cancel()
	if s.terminal != nil {
		before, err := term.MakeRaw(int(s.terminal.Fd()))
		if err != nil {
			return fmt.Errorf("take over the terminal: %w", err)
		}
		defer func() { _ = term.Restore(int(s.terminal.Fd()), before) }()
	}
	killed := make(chan struct{})
	go s.signals(ctx, a, killed)
	go s.input(ctx, a.In) // ends with the program, or else with this process: a read cannot be called off
	outputs := make(chan error, 1)
	var exit *tcplabv1.ProgramExit
	go func() {
		var err error
		exit, err = s.output(a)
		outputs <- err
	}()
	select {
	case err := <-outputs:
		if err != nil {
			return err
		}
	case <-killed:
		return errInterrupted // and the stream breaks, which kills it
	}
	return &statusError{status: int(exit.GetStatus()), message: exit.GetFailure()}
}

// output hands on what comes of the program.
func (s *session) output(a *app) (*tcplabv1.ProgramExit, error) {
	for {
		response, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		switch out := response.GetOutput().GetOutput().(type) {
		case *tcplabv1.ProgramOutput_Stdout:
			_, err = a.Out.Write(out.Stdout)
		case *tcplabv1.ProgramOutput_Stderr:
			_, err = a.Err.Write(out.Stderr)
		case *tcplabv1.ProgramOutput_StdinTaken:
			for range (out.StdinTaken + pieceSize - 1) / pieceSize {
				select {
				case <-s.ahead:
				default:
				}
			}
		case *tcplabv1.ProgramOutput_Exit:
			return out.Exit, nil
		}
		if err != nil {
			return nil, fmt.Errorf("write what the program says: %w", err)
		}
	}
}

// input hands on standard input, no more at once than the program takes soon.
func (s *session) input(ctx context.Context, in io.Reader) {
	if f, ok := in.(*os.File); ok && behind(f) {
		in = strings.NewReader("") // a job in the background has nobody to type
	}
	for {
		piece := make([]byte, pieceSize)
		n, err := in.Read(piece)
		if n > 0 {
			select {
			case s.ahead <- struct{}{}:
			case <-ctx.Done():
				return
			}
			s.send(&tcplabv1.ProgramInput{Input: &tcplabv1.ProgramInput_Stdin{Stdin: piece[:n]}})
		}
		if err != nil {
			s.send(&tcplabv1.ProgramInput{Input: &tcplabv1.ProgramInput_StdinEnd{StdinEnd: true}})
			return
		}
	}
}

// signals hands on signals and the terminal's size. Who sends the third signal wants the program gone.
func (s *session) signals(ctx context.Context, a *app, killed chan<- struct{}) {
	others := make(chan os.Signal, 8)
	signal.Notify(others, syscall.SIGWINCH, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(others)
	asked := 0
	for {
		var got os.Signal
		select {
		case got = <-others:
		case got = <-a.Signals:
			if asked++; asked == killAfter {
				close(killed)
				return
			}
		case <-ctx.Done():
			return
		}
		number, ok := got.(syscall.Signal)
		switch {
		case !ok:
		case number == syscall.SIGWINCH:
			if s.terminal != nil {
				s.send(&tcplabv1.ProgramInput{Input: &tcplabv1.ProgramInput_TerminalSize{TerminalSize: sizeOf(s.terminal)}})
			}
		default:
			s.send(&tcplabv1.ProgramInput{Input: &tcplabv1.ProgramInput_Signal{Signal: linuxNumber(number)}})
		}
	}
}

// linuxNumber is a signal's number on Linux, which USR1 and USR2 have elsewhere not.
func linuxNumber(s syscall.Signal) uint32 {
	switch s {
	case syscall.SIGUSR1:
		return 10
	case syscall.SIGUSR2:
		return 12
	}
	return uint32(s)
}
