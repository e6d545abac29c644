package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/need"
)

// confined is a script that runs confined in a node of its own, and does not see the folder.
func confined(t testing.TB, hidden, script string) Spec {
	t.Helper()
	s := spec(t, "/bin/sh", "-c", script)
	s.Dir, s.Env = FolderPath, EnvironmentOf("nobody", FolderPath, false, nil)
	s.Folder = &Folder{Files: map[string]string{"motd": "hello\n"}}
	s.Confined = &Confinement{Hidden: []string{hidden, "/there/is/none"}}
	return s
}

// secretFolder is a folder outside of /tmp that everybody may read.
func secretFolder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "tcplab-test-") //nolint:usetesting // the program has a /tmp of its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A confined program can do next to nothing to its host. The same script shows, run without
// confinement, that it would have.
func TestConfined(t *testing.T) {
	who := "65534:65534"
	if !hasNobody() {
		who = "0:0"
	}
	for name, c := range map[string]struct{ script, want, free string }{
		"user":         {"echo $(id -u):$(id -g) $USER $HOME", who + " nobody /tmp\n", "0:0 nobody /tmp\n"},
		"groups":       {"grep ^Groups /proc/self/status | tr -d '\\t '", "Groups:\n", ""},
		"capabilities": {"grep -e ^CapEff -e ^CapPrm -e ^CapBnd /proc/self/status | cut -f2 | sort -u", "0000000000000000\n", ""},
		"privileges":   {"grep ^NoNewPrivs /proc/self/status | cut -f2", "1\n", "0\n"},
		"core":         {"ulimit -c", "0\n", ""},
		"folder":       {"pwd; cat motd; echo more >more && cat more; ls", "/tmp\nhello\nmore\nmore\nmotd\n", "/tmp\nhello\nmore\nmore\nmotd\n"},
		"read-only":    {"for d in / /var/tmp /dev /etc /run; do (echo x >$d/tcplab-confined) 2>/dev/null && rm $d/tcplab-confined && echo $d; done; true", "", "/\n/var/tmp\n/dev\n/etc\n/run\n"},
		"null":         {"echo x >/dev/null && echo written", "written\n", "written\n"},
		"shm":          {"echo x >/dev/shm/x && ls /dev/shm", "x\n", ""},
		"hidden":       {"cat $SECRET/secret 2>/dev/null; ls $SECRET 2>/dev/null; true", "", "secretsecret\n"},
		"sysctls":      {"(echo 1 >/proc/sys/net/ipv4/ip_forward) 2>/dev/null && echo set; true", "", "set\n"},
		"mounts":       {"cd /; umount $SECRET 2>/dev/null && echo gone; umount -l /tmp 2>/dev/null && echo tmp; true", "", "tmp\n"},
		"names":        {"getent hosts server; hostname", "10.1.2.3        server\nclient\n", "10.1.2.3        server\nclient\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := secretFolder(t)
			s := confined(t, dir, c.script)
			s.Env = append(s.Env, "SECRET="+dir)
			out, errs, exit := run(t, s, "")
			if out != c.want || errs != "" || exit != (Exit{}) {
				t.Errorf("confined it says %q, complains of %q and ends with %+v; want %q", out, errs, exit, c.want)
			}
			s.Confined = nil
			if out, _, _ := run(t, s, ""); c.free != "" && os.Getuid() == 0 && out != c.free {
				t.Errorf("free it says %q, want %q: does the test see what it should?", out, c.free)
			}
		})
	}
	if left, err := filepath.Glob("/*/tcplab-confined"); err != nil || len(left) > 0 {
		t.Errorf("it left %v (%v)", left, err)
	}
}

// A program of root's own can gain nothing by execve(2), and has its folder.
func TestGainless(t *testing.T) {
	s := spec(t, "/bin/sh", "-c", "grep ^NoNewPrivs /proc/self/status | cut -f2; cat /tmp/motd")
	s.Gainless, s.Folder = true, &Folder{Files: map[string]string{"motd": "hello\n"}}
	if out, errs, exit := run(t, s, ""); out != "1\nhello\n" || errs != "" || exit != (Exit{}) {
		t.Errorf("it says %q, complains of %q and ends with %+v", out, errs, exit)
	}
}

// Files of a folder stay in it.
func TestFolderNames(t *testing.T) {
	for _, name := range []string{"../escaped", "/etc/escaped", "..", "."} {
		s := spec(t, "true")
		s.Folder = &Folder{Files: map[string]string{name: "x"}}
		p, err := Start(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err == nil || !strings.Contains(err.Error(), "is no name of a file") {
			t.Errorf("%s: %v", name, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Confined is confined for root of a user namespace, too, which has no nobody.
func TestConfinedInUserNamespace(t *testing.T) {
	need.NetNS(t)
	need.UserNS(t)
	if inside := os.Getenv("TCPLAB_TEST_INSIDE"); inside != "" || !hasNobody() {
		t.Skip("it is inside already")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^(TestConfined|TestGainless)$", "-test.v")
	cmd.Env = append(os.Environ(), "TCPLAB_TEST_INSIDE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestConfined/hidden") {
		t.Errorf("%v\n%s", err, out)
	}
}
