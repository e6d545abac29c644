package cli

import (
	"os"
	"path/filepath"
)

// runtimeDirVar names the environment variable that replaces the runtime directory.
const runtimeDirVar = "TCPLAB_RUNTIME_DIR"

// runtimeDirectory is where standing labs are found: what the variable says, /run for the
// machine's root, the user's XDG runtime directory, and a folder of the state
// directory where there is none.
func (a *app) runtimeDirectory() (string, error) {
	if dir := a.Getenv(runtimeDirVar); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 && !inUserNamespace() {
		return "/run/tcplab", nil
	}
	if dir := a.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tcplab"), nil
	}
	state, err := a.stateDirectory()
	if err != nil {
		return "", err
	}
	return filepath.Join(state, "standing"), nil
}
