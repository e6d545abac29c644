package agent

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// The agent itself refuses to start what the command does not permit, whoever checked before it.
func TestExecPermission(t *testing.T) {
	exec := &tcplabv1.Flow{Name: "run", Client: "client", Server: "server", Kind: &tcplabv1.Flow_Exec{Exec: &tcplabv1.Exec{
		Client: &tcplabv1.ExecProgram{Argv: []string{"true"}}, User: tcplabv1.ExecUser_EXEC_USER_ROOT,
	}}}
	r := start(t, t.TempDir())
	r.apply(t, "d", twoNodes(t, nil, exec))
	for _, permission := range []tcplabv1.ExecPermission{tcplabv1.ExecPermission_EXEC_PERMISSION_UNSPECIFIED, tcplabv1.ExecPermission_EXEC_PERMISSION_NOBODY} {
		_, err := r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{DeploymentId: "d", TrialId: "t", Exec: permission})
		e := rpcerr.From(err)
		if e == nil || e.Code != codes.PermissionDenied || e.Reason != rpcerr.NotPermitted || len(e.Violations) != 1 || e.Violations[0].Field != "experiments[0].flows[0]" {
			t.Errorf("%s: %v", permission, err)
		}
	}
	if _, err := r.StartTrial(r.ctx, &tcplabv1.StartTrialRequest{DeploymentId: "d", TrialId: "t", Exec: tcplabv1.ExecPermission_EXEC_PERMISSION_ROOT}); err != nil {
		t.Fatal(err)
	}
	ended := r.watch(t, "t", nil)
	if f := ended.GetResult().GetFlows(); ended.GetFailure() != "" || f[0].GetOutcome() != tcplabv1.FlowOutcome_FLOW_OUTCOME_COMPLETED {
		t.Errorf("%s: %v", ended.GetFailure(), f)
	}
}
