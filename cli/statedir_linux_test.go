package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tcplab/tcplab/internal/need"
)

// showStateDir makes the test binary print where it would keep runs.
const showStateDir = "TCPLAB_TEST_STATE_DIR"

func TestStateDirectory(t *testing.T) {
	if os.Getenv(showStateDir) != "" {
		dir, err := (&app{Environment: &Environment{Getenv: os.Getenv}}).stateDirectory()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("dir=%s", dir)
		return
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	machine := "/home/me/.local/state/tcplab"
	if os.Geteuid() == 0 && !inUserNamespace() {
		machine = "/var/lib/tcplab"
	}
	for name, test := range map[string]struct {
		flag string
		env  map[string]string
		want string
	}{
		"the flag":              {"/flag", map[string]string{stateDirVar: "/variable", "HOME": "/home/me"}, "/flag"},
		"a flag from here":      {"flag", nil, filepath.Join(here, "flag")},
		"the variable":          {"", map[string]string{stateDirVar: "/variable", "HOME": "/home/me"}, "/variable"},
		"the user's or machine": {"", map[string]string{"HOME": "/home/me"}, machine},
	} {
		t.Run(name, func(t *testing.T) {
			a := &app{Environment: &Environment{Getenv: func(name string) string { return test.env[name] }}, stateDir: test.flag}
			if got, err := a.stateDirectory(); err != nil || got != test.want {
				t.Errorf("runs are kept in %q (%v), want %q", got, err, test.want)
			}
		})
	}
}

// Root of a user namespace is not the machine's root: /var/lib is not theirs.
func TestStateDirectoryOfUserNamespace(t *testing.T) {
	need.UserNS(t)
	for name, test := range map[string]struct {
		env  []string
		want string
	}{
		"home":               {[]string{"HOME=/home/me"}, "/home/me/.local/state/tcplab"},
		"XDG":                {[]string{"HOME=/home/me", "XDG_STATE_HOME=/xdg"}, "/xdg/tcplab"},
		"an XDG that is not": {[]string{"HOME=/home/me", "XDG_STATE_HOME=relative"}, "/home/me/.local/state/tcplab"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestStateDirectory$", "-test.v")
			cmd.Env = append(test.env, showStateDir+"=1")
			cmd.SysProcAttr = asUser(0)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "dir="+test.want+"\n") {
				t.Errorf("%v, want %s:\n%s", err, test.want, out)
			}
		})
	}
}

// asUser starts a process as the only user of a user namespace: as its root, or as an
// ordinary user, who has no capability once the program runs.
func asUser(id int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getgid(), Size: 1}},
	}
}
