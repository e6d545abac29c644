package kernel

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Requirement is something that building takes and this machine lacks.
type Requirement struct {
	Package string // Debian's
	What    string // it is for
}

// MissingError says what building takes and this machine lacks.
type MissingError struct{ Requirements []Requirement }

func (e *MissingError) Error() string {
	var b strings.Builder
	b.WriteString("building a guest kernel takes what this machine lacks:")
	for _, r := range e.Requirements {
		fmt.Fprintf(&b, "\n  %s: %s", r.Package, r.What)
	}
	return b.String()
}

// Command is what an administrator types to get it.
func (e *MissingError) Command() string {
	names := make([]string, len(e.Requirements))
	for i, r := range e.Requirements {
		names[i] = r.Package
	}
	return "apt-get install --no-install-recommends " + strings.Join(names, " ")
}

// missing is what building from the source takes and this machine lacks.
func missing(s source) []Requirement {
	var all []Requirement
	for _, tool := range []struct{ program, from, what string }{
		{"make", "make", "leads the build"},
		{"gcc", "gcc", "compiles"},
		{"ld", "binutils", "links"},
		{"flex", "flex", "builds the kernel's configuration program"},
		{"bison", "bison", "builds the kernel's configuration program"},
		{"bc", "bc", "computes the constants of the kernel's clock"},
		{"perl", "perl-base", "runs the build's scripts"},
		{"tar", "tar", "unpacks the source"},
		{"xz", "xz-utils", "unpacks the source"},
	} {
		if _, err := exec.LookPath(tool.program); err != nil {
			all = append(all, Requirement{tool.from, tool.what})
		}
	}
	if _, err := os.Stat("/usr/include/stdlib.h"); err != nil {
		all = append(all, Requirement{"libc6-dev", "user-mode Linux is a program of the C library's"})
	}
	if s.missing {
		all = append(all, Requirement{s.name, "the kernel's source"})
	}
	return all
}

// install has apt install what is missing.
func install(ctx context.Context, lacks *MissingError, log *os.File) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("installing packages takes root; as root: %s", lacks.Command())
	}
	for _, args := range [][]string{{"apt-get", "update", "-q"}, append([]string{"apt-get", "-q", "-y"}, strings.Fields(lacks.Command())[1:]...)} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}
