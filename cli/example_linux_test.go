package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tcplab/tcplab/internal/need"
)

// commands are all that a user can type, the groups too.
func commands(t *testing.T) []*cobra.Command {
	t.Helper()
	var all []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		all = append(all, cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	root := (&app{Environment: &Environment{}}).rootCommand()
	root.InitDefaultHelpCmd()
	walk(root)
	return all
}

// capturedLab is one whose packets can be looked at.
const capturedLab = `name: captured
nodes: [client, server]
links:
  - between: [client, server]
    delay: 1ms
experiments:
  - capture: {}
    flows:
      - name: wwr
        transaction: {from: client, to: server, writes: [10B, 10B], reply: 20B, count: 3}
      - name: up
        bulk: {from: client, to: server, bytes: 100kB}
`

// isElsewhere reports whether a command is one of several machines, or works for minutes: those are carried
// out in tests of their own, and here the words and flags of their examples are right.
func isElsewhere(cmd *cobra.Command) bool {
	path := strings.Fields(cmd.CommandPath())
	return len(path) > 1 && slices.Contains([]string{"agent", "audit", "context", "controller", "hosts", "token", "user", "kernel"}, path[1])
}

// Each command says in its help what it does and how it is called, and what it
// calls an example works as it stands there.
func TestExamples(t *testing.T) {
	need.NetNS(t)
	shell := need.Command(t, "bash")
	need.Command(t, "jq")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(program, filepath.Join(bin, "tcplab")); err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	standing := setting{state: state}
	standing.start(t, "up", "handshake").end(t, exitOK)
	run := filepath.Join(state, "run")
	t.Cleanup(func() { downAll(t, program, run) })
	inProcess(t, exitDisagrees, "run", labFile(t, "contract", contractLab), "--state-dir", state)
	inProcess(t, exitOK, "run", labFile(t, "captured", capturedLab), "--state-dir", state)
	for _, cmd := range commands(t) {
		if !cmd.Hidden && (cmd.Short == "" || cmd.Example == "") {
			t.Errorf("%s has no example or says nothing of itself", cmd.CommandPath())
		}
		if cmd.Hidden {
			continue
		}
		for line := range strings.Lines(cmd.Example) {
			line = strings.TrimSpace(line)
			t.Run(line, func(t *testing.T) {
				if !strings.Contains(line, cmd.CommandPath()) {
					t.Errorf("the example is none of %s", cmd.CommandPath())
				}
				// A run's plan says that its lab and flags are right; how labs run is tested
				// elsewhere. The ID in an example stands for one of the reader's.
				typed := strings.NewReplacer("tcplab run ", "tcplab run --dry-run ", "nagle-7k", "last").Replace(line)
				if isElsewhere(cmd) {
					command, _, _ := strings.Cut(typed, " #")
					command, _, _ = strings.Cut(command, " |")
					typed = command + " --help"
				}
				// What comes and goes has labs of its own.
				labs := run
				if strings.HasPrefix(line, "tcplab up") || strings.HasPrefix(line, "tcplab down") {
					labs = filepath.Join(t.TempDir(), "run")
					t.Cleanup(func() { downAll(t, program, labs) })
				}
				run := exec.CommandContext(t.Context(), shell, "-e", "-o", "pipefail", "-c", typed)
				run.Dir = t.TempDir()
				run.Env = append(storyEnv(), stateDirVar+"="+state, runtimeDirVar+"="+labs, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
				if strings.HasPrefix(line, "tcplab down h") {
					up := exec.CommandContext(t.Context(), program, "up", "handshake")
					up.Env = run.Env
					if out, err := up.CombinedOutput(); err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
				}
				if !strings.HasPrefix(line, "tcplab lab new") {
					starter := exec.CommandContext(t.Context(), shell, "-c", "tcplab lab new mine")
					starter.Dir, starter.Env = run.Dir, run.Env
					if out, err := starter.CombinedOutput(); err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
				}
				if out, err := run.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", typed, err, out)
				}
			})
		}
	}
}
