package cli

import (
	"errors"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// execFlag is what --allow-exec permits.
type execFlag tcplabv1.ExecPermission

// String is the flag's value.
func (f *execFlag) String() string {
	switch tcplabv1.ExecPermission(*f) {
	case tcplabv1.ExecPermission_EXEC_PERMISSION_NOBODY:
		return "nobody"
	case tcplabv1.ExecPermission_EXEC_PERMISSION_ROOT:
		return "root"
	}
	return ""
}

// Type names the value in help.
func (f *execFlag) Type() string { return "user" }

// Set parses the flag.
func (f *execFlag) Set(s string) error {
	switch s {
	case "nobody":
		*f = execFlag(tcplabv1.ExecPermission_EXEC_PERMISSION_NOBODY)
	case "root":
		*f = execFlag(tcplabv1.ExecPermission_EXEC_PERMISSION_ROOT)
	default:
		return errors.New("want nobody or root")
	}
	return nil
}
