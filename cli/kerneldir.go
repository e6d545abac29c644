package cli

import (
	"os"
	"path/filepath"
	"slices"
)

// kernelDirVar names the environment variable with the folder of guest kernels, where it is neither
// the machine's nor the user's.
const kernelDirVar = "TCPLAB_KERNEL_DIR"

// machineKernels is where root keeps guest kernels, for all users.
const machineKernels = "/var/cache/tcplab/kernels"

// kernelFolder is where this user keeps guest kernels: the variable's, the machine's for root, and the user's
// XDG cache directory otherwise.
func (a *app) kernelFolder() (string, error) {
	if dir := a.Getenv(kernelDirVar); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 && !inUserNamespace() {
		return machineKernels, nil
	}
	if dir := a.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tcplab", "kernels"), nil
	}
	home := a.Getenv("HOME")
	if home == "" {
		return "", usageError("there is nowhere to keep guest kernels: HOME is not set; set %s", kernelDirVar)
	}
	return filepath.Join(home, ".cache", "tcplab", "kernels"), nil
}

// kernelFolders is where guest kernels are looked for: the user's own folder and the machine's.
func (a *app) kernelFolders() ([]string, error) {
	own, err := a.kernelFolder()
	if err != nil {
		return nil, err
	}
	return slices.Compact([]string{own, machineKernels}), nil
}
