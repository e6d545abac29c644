package agent

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/agent/policy"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// notPermitted says that the host's owner does not permit something.
func notPermitted(err error) error {
	return rpcerr.New(codes.PermissionDenied, rpcerr.NotPermitted, "The host's owner decides, in its policy (docs/operations.md).", "%w", err)
}

// permitLab holds a lab against the host's policy, before anything of it is built.
func (o *ownHost) permitLab(lab *tcplabv1.Lab) error {
	if o.policy.Commanded && o.wrong != nil {
		return notPermitted(fmt.Errorf("this host's policy cannot be read, and so nothing is permitted: %w", o.wrong))
	}
	for _, node := range lab.GetNodes() {
		for _, name := range slices.Sorted(maps.Keys(node.GetSysctls())) {
			if err := o.policy.AllowSysctl(name); err != nil {
				return notPermitted(fmt.Errorf("node %s: %w", node.GetName(), err))
			}
		}
	}
	for _, link := range lab.GetLinks() {
		for _, direction := range []*tcplabv1.Direction{link.GetForward(), link.GetBackward()} {
			if err := o.policy.AllowRate(direction.GetShape().GetRateBps()); err != nil {
				return notPermitted(fmt.Errorf("link %s: %w", link.GetName(), err))
			}
		}
	}
	return o.permitPrograms(userOf(labs.ExecNeeds(lab)))
}

// permitPrograms holds a user as whom programs shall run against the host's policy.
func (o *ownHost) permitPrograms(as policy.User) error {
	if err := o.policy.AllowPrograms(as); err != nil {
		return notPermitted(err)
	}
	return nil
}

func userOf(permission tcplabv1.ExecPermission) policy.User {
	switch permission {
	case tcplabv1.ExecPermission_EXEC_PERMISSION_NOBODY:
		return policy.Nobody
	case tcplabv1.ExecPermission_EXEC_PERMISSION_ROOT:
		return policy.Root
	}
	return policy.NoUser
}
