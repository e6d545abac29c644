package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// stateDirVar names the environment variable that stands for --state-dir.
const stateDirVar = "TCPLAB_STATE_DIR"

// stateDirectory is where runs are kept: the flag, the variable, /var/lib for
// the machine's root, and the user's XDG state directory otherwise.
func (a *app) stateDirectory() (string, error) {
	for _, dir := range []string{a.stateDir, a.Getenv(stateDirVar)} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	if os.Geteuid() == 0 && !inUserNamespace() {
		return "/var/lib/tcplab", nil
	}
	if dir := a.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tcplab"), nil
	}
	home := a.Getenv("HOME")
	if home == "" {
		return "", usageError("there is nowhere to keep runs: HOME is not set; give --state-dir")
	}
	return filepath.Join(home, ".local", "state", "tcplab"), nil
}

// inUserNamespace reports whether user IDs here are mapped: root of a user
// namespace is not the machine's root (user_namespaces(7)).
func inUserNamespace() bool {
	content, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	var inside, outside, count uint64
	if _, err := fmt.Sscan(strings.TrimSpace(string(content)), &inside, &outside, &count); err != nil {
		return true
	}
	return inside != 0 || outside != 0 || count != 1<<32-1
}
