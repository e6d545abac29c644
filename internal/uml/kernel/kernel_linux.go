// Package kernel builds and keeps the kernels of guests in virtual time: user-mode Linux from
// the source of a distribution's kernel, with the configuration that is committed here and
// nothing else, so that it builds in minutes and boots in a fraction of a second.
//
// A kernel that is built stands in a folder of its own, named for the source's version and the
// configuration's hash, with the configuration it has. Another configuration or source is another
// kernel; what is built is never changed.
//
// It refuses to take a kernel of another configuration for its own, and to leave a
// half-built one where a whole one is looked for. x86-64 only, as user-mode Linux is.
package kernel

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Names in the folder of kernels and in that of one kernel.
const (
	programName = "linux"
	configName  = "config"
	aboutName   = "about.json"
	workName    = ".build" // what is being built
	lockName    = ".lock"
	logName     = "build.log" // of the last build that failed
)

// Kernel is one that is built.
type Kernel struct {
	Name       string    `json:"name"`        // of its folder
	Release    string    `json:"release"`     // as uname prints it: "6.12.117-tcplab"
	Source     string    `json:"source"`      // what it was built from: "linux-source-6.12 6.12.117-1~deb12u1"
	ConfigHash string    `json:"config_hash"` // of its configuration and patches; see [Hash]
	HZ         int       `json:"hz"`          // timer interrupts a second
	Built      time.Time `json:"built"`
	Took       string    `json:"took"`    // to build, for the next estimate
	Size       int64     `json:"size"`    // of its program, in bytes
	Path       string    `json:"path"`    // of its program
	Current    bool      `json:"current"` // built with the configuration of this tcplab
}

// List is the kernels in the folders, those of this tcplab's configuration first, the newest
// release of them first. A folder that is not there has none.
func List(folders ...string) ([]Kernel, error) {
	var all []Kernel
	for _, folder := range folders {
		entries, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("list the guest kernels: %w", err)
		}
		for _, entry := range entries {
			if !entry.IsDir() || entry.Name() == workName {
				continue
			}
			if k, err := read(filepath.Join(folder, entry.Name())); err == nil {
				all = append(all, k)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Kernel) int {
		if a.Current != b.Current {
			return cmp.Compare(order(a.Current), order(b.Current))
		}
		return cmp.Or(-compareVersions(a.Release, b.Release), b.Built.Compare(a.Built))
	})
	return all, nil
}

func order(current bool) int {
	if current {
		return 0
	}
	return 1
}

// Find is the newest kernel of this tcplab's configuration. The error is [ErrNone] where there is
// none.
func Find(folders ...string) (Kernel, error) {
	all, err := List(folders...)
	if err != nil {
		return Kernel{}, err
	}
	if len(all) == 0 || !all[0].Current {
		return Kernel{}, ErrNone
	}
	return all[0], nil
}

// ErrNone says that there is no kernel of this tcplab's configuration.
var ErrNone = errors.New("no guest kernel of this tcplab's configuration is built")

// read reads what is known of the kernel in the folder.
func read(folder string) (Kernel, error) {
	content, err := os.ReadFile(filepath.Join(folder, aboutName))
	if err != nil {
		return Kernel{}, err
	}
	var k Kernel
	if err := json.Unmarshal(content, &k); err != nil {
		return Kernel{}, err
	}
	k.Name, k.Path = filepath.Base(folder), filepath.Join(folder, programName)
	k.Current = k.ConfigHash == Hash()
	info, err := os.Stat(k.Path)
	if err != nil {
		return Kernel{}, err
	}
	k.Size = info.Size()
	return k, nil
}

// Remove removes a kernel. A guest that runs on it goes on.
func Remove(k Kernel) error {
	if err := os.RemoveAll(filepath.Dir(k.Path)); err != nil {
		return fmt.Errorf("remove the guest kernel %s: %w", k.Name, err)
	}
	return nil
}
