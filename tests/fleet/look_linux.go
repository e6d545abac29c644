package fleet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// Folder is a host's state directory; that of "controller" is the controller's.
func (f *Fleet) Folder(host string) string { return filepath.Join(f.dir, host) }

// at is the machine of a name.
func (f *Fleet) at(host string) (*machine, error) {
	if host == f.control.name {
		return f.control, nil
	}
	m, ok := f.hosts[host]
	if !ok {
		return nil, fmt.Errorf("no host is called %s", host)
	}
	return m, nil
}

// Runs reports whether the process of a host, or of "controller", is under way: one may end by itself.
func (f *Fleet) Runs(host string) bool {
	m, err := f.at(host)
	if err != nil || m.process == nil {
		return false
	}
	select {
	case <-m.process.ended:
		return false
	default:
		return true
	}
}

// Descriptors counts what a host's process has open.
func (f *Fleet) Descriptors(host string) (int, error) {
	m, err := f.at(host)
	if err != nil {
		return 0, err
	}
	if m.process == nil {
		return 0, fmt.Errorf("nothing runs on %s", host)
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.process.cmd.Process.Pid))
	return len(entries), err
}

// Quit ends a host's process by SIGQUIT, at which Go's runtime prints its goroutines, and counts them.
func (f *Fleet) Quit(host string) (goroutines int, dump string, err error) {
	m, err := f.at(host)
	if err != nil {
		return 0, "", err
	}
	p := m.process
	if p == nil {
		return 0, "", fmt.Errorf("nothing runs on %s", host)
	}
	before := len(p.said())
	if err := m.end(syscall.SIGQUIT); err != nil {
		return 0, "", err
	}
	dump = p.said()[before:]
	goroutines = len(regexp.MustCompile(`(?m)^goroutine \d+ `).FindAllString(dump, -1))
	if goroutines == 0 {
		err = fmt.Errorf("the process on %s printed no goroutines: %s", host, dump)
	}
	return goroutines, dump, err
}

// Left names the processes that have a folder of this fleet in their environment, but for those that the fleet runs itself.
func (f *Fleet) Left() (left []string, err error) {
	own := map[string]bool{}
	for _, m := range append(machines(f), f.control) {
		if m.process != nil {
			own[fmt.Sprint(m.process.cmd.Process.Pid)] = true
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid := e.Name()
		if own[pid] || strings.Trim(pid, "0123456789") != "" {
			continue
		}
		environment, err := os.ReadFile(filepath.Join("/proc", pid, "environ"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || !strings.Contains(string(environment), "TCPLAB_STATE_DIR="+f.dir) {
			continue
		}
		words, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline")) // it may end meanwhile
		left = append(left, pid+" "+strings.ReplaceAll(string(words), "\x00", " "))
	}
	return left, nil
}

func machines(f *Fleet) (all []*machine) {
	for _, m := range f.hosts {
		all = append(all, m)
	}
	return all
}
