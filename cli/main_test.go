package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"rsc.io/script"
	"rsc.io/script/scripttest"
)

// asProgram makes the test binary be tcplab, so that tests see exit statuses,
// pipes, signals and several processes as users do.
const asProgram = "TCPLAB_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" || os.Getpid() == 1 { // the init of a guest has no such variable
		os.Exit(Main(os.Args[1:], Process()))
	}
	goleak.VerifyTestMain(m)
}

// TestStories runs what needs no lab to stand.
func TestStories(t *testing.T) {
	scripttest.Test(t, t.Context(), storyEngine(t), storyEnv(), "testdata/script/any/*.txt")
}

// storyEnv is the environment of a story: of this process's nothing but the
// way to programs.
func storyEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), asProgram + "=1", "HOME=/nowhere", "TERM=xterm", "LC_ALL=C.UTF-8"}
}

// storyEngine knows two commands more: "tcplab ARGS…" must exit 0, and
// "exits STATUS ARGS…" runs tcplab and wants that exit status. Both keep runs in
// state, a folder of the story.
func storyEngine(t *testing.T) *script.Engine {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := t.TempDir() // a folder of each story in it
	t.Cleanup(func() {
		stories, err := os.ReadDir(run)
		if err != nil {
			t.Error(err)
		}
		for _, story := range stories {
			if out := downAll(t, program, filepath.Join(run, story.Name())); out != "" {
				t.Errorf("%s has left something standing: %s", story.Name(), out)
			}
		}
	})
	engine := script.NewEngine()
	engine.Cmds = scripttest.DefaultCmds()
	engine.Conds = scripttest.DefaultConds()
	engine.Cmds["tcplab"] = script.Command(script.CmdUsage{Summary: "run tcplab", Args: "[args...]"},
		func(s *script.State, args ...string) (script.WaitFunc, error) { return tell(s, program, run, 0, args) })
	engine.Cmds["exits"] = script.Command(script.CmdUsage{Summary: "run tcplab and want its exit status", Args: "status [args...]"},
		func(s *script.State, args ...string) (script.WaitFunc, error) {
			if len(args) == 0 {
				return nil, script.ErrUsage
			}
			want, err := strconv.Atoi(args[0])
			if err != nil {
				return nil, script.ErrUsage
			}
			return tell(s, program, run, want, args[1:])
		})
	return engine
}

// downAll takes down what stands in the folder, and returns what is said of it.
func downAll(t *testing.T, program, run string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "down", "--all")
	cmd.Env = append(storyEnv(), runtimeDirVar+"="+run)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("take down what stands: %v", err)
	}
	return string(out)
}

// tell runs the program in the story's folder and wants its exit status. Labs
// stand in a folder of run.
func tell(s *script.State, program, run string, want int, args []string) (script.WaitFunc, error) {
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = s.Getwd()
	work, _ := s.LookupEnv("WORK")
	cmd.Env = append(s.Environ(), stateDirVar+"="+filepath.Join(work, "state"), runtimeDirVar+"="+filepath.Join(run, filepath.Base(filepath.Dir(work))))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return func(*script.State) (string, string, error) {
		defer cancel()
		err := cmd.Run()
		if _, ok := errors.AsType[*exec.ExitError](err); ok {
			err = nil
		}
		if got := cmd.ProcessState.ExitCode(); err == nil && got != want {
			err = fmt.Errorf("exit status %d, want %d", got, want)
		}
		return stdout.String(), stderr.String(), err
	}, nil
}
