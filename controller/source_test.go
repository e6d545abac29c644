package controller

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const execLab = `name: exec
nodes: [client, server]
links:
  - between: [client, server]
experiments:
  - flows:
      - {name: run, exec: {from: client, to: server, client: {run: "true"}}}
`

// What a lab's flows start needs a permission, told at the place in the source, and the run gets what it
// needs and no more.
func TestPermit(t *testing.T) {
	req := &tcplabv1.CreateRunRequest{LabSource: &tcplabv1.CreateRunRequest_Source{Source: &tcplabv1.LabSource{FileName: "exec.yaml", Content: []byte(execLab)}}}
	labs, err := points(req)
	if err != nil {
		t.Fatal(err)
	}
	_, err = permit(req, labs, tcplabv1.ExecPermission_EXEC_PERMISSION_UNSPECIFIED)
	e := rpcerr.From(err)
	if e == nil || e.Code != codes.PermissionDenied || e.Reason != rpcerr.NotPermitted || len(e.Violations) != 1 || e.Violations[0].Field != "exec.yaml:7:9" {
		t.Errorf("%+v", e)
	}
	whole := &tcplabv1.CreateRunRequest{LabSource: &tcplabv1.CreateRunRequest_Lab{Lab: labs[0]}}
	_, err = permit(whole, labs, tcplabv1.ExecPermission_EXEC_PERMISSION_UNSPECIFIED)
	if e := rpcerr.From(err); e == nil || e.Code != codes.PermissionDenied || len(e.Violations) != 1 || e.Violations[0].Field != "experiments[0].flows[0]" {
		t.Errorf("%+v", e)
	}
	got, err := permit(req, labs, tcplabv1.ExecPermission_EXEC_PERMISSION_ROOT)
	if err != nil || got != tcplabv1.ExecPermission_EXEC_PERMISSION_NOBODY {
		t.Errorf("%s, %v", got, err)
	}
}
