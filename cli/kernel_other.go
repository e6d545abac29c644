//go:build !linux

package cli

import (
	"github.com/spf13/cobra"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) virtualCapability() (*tcplabv1.Capability, error) { return nil, errNotLinux() }

func (a *app) kernelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "kernel",
		Short: "Build and keep the guest kernels of virtual time",
		RunE:  func(*cobra.Command, []string) error { return errNotLinux() },
	}
}
