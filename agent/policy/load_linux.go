package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Load reads the policy in the file. Where there is no file the policy is the
// zero value. An error has the form file:line:column: what.
func Load(path string) (Policy, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Policy{}, nil
	}
	if err != nil {
		return Policy{}, fmt.Errorf("read the host's policy: %w", err)
	}
	defer file.Close()
	if err := guarded(file); err != nil {
		return Policy{}, fmt.Errorf("the host's policy %s: %w", path, err)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return Policy{}, fmt.Errorf("read the host's policy: %w", err)
	}
	p, err := Parse(path, content)
	if err != nil {
		return Policy{}, fmt.Errorf("the host's policy: %w", err)
	}
	return p, nil
}

// guarded refuses a file that anybody else than root and this process's user
// could have written.
func guarded(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is no file")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("its mode is %04o, so that others than its owner can write it: chmod 0644", info.Mode().Perm())
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, and neither to root nor to the agent's user: chown root", stat.Uid)
	}
	return nil
}
