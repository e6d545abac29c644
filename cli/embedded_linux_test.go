package cli

import (
	"path/filepath"
	"strings"
	"testing"
)

// A command that needs the services for a moment alone may end before they
// serve, which is no error.
func TestShortCommands(t *testing.T) {
	dir := t.TempDir()
	for range 30 {
		if stdout, stderr := inProcess(t, exitOK, "runs", "list", "--state-dir", dir); stdout != "" || !strings.HasPrefix(stderr, "no runs yet") {
			t.Fatalf("%q, %q", stdout, stderr)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, socketName))
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
}
