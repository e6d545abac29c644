package labs

import (
	"errors"
	"strings"
	"testing"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

const execLab = `name: exec
params:
  who: [nobody, root]
nodes: [client, server]
links:
  - between: [client, server]
experiments:
  - flows:
      - {name: bulk, bulk: {from: client, to: server, bytes: 1B}}
      - name: get
        exec: {from: client, to: server, server: {run: /usr/sbin/nginx}, client: {run: [curl, server]}, user: "${who}"}
`

// What a lab starts needs permission, at the point that needs most.
func TestPermit(t *testing.T) {
	const (
		none   = tcplabv1.ExecPermission_EXEC_PERMISSION_UNSPECIFIED
		nobody = tcplabv1.ExecPermission_EXEC_PERMISSION_NOBODY
		root   = tcplabv1.ExecPermission_EXEC_PERMISSION_ROOT
	)
	file, err := Parse(Source{Name: "exec.yaml", Content: []byte(execLab)})
	if err != nil {
		t.Fatal(err)
	}
	asNobody := []Override{{Name: "who", Values: []string{"nobody"}}}
	for _, c := range []struct {
		overrides  []Override
		permission tcplabv1.ExecPermission
		want       string
	}{
		{nil, none, "exec.yaml:10:9: the flow get runs nginx and curl on this host, as an unprivileged user, at who=nobody (read the lab, and where you trust it permit that with --allow-exec)"},
		{nil, nobody, "exec.yaml:10:9: the flow get runs nginx and curl on this host, as root, at who=root"},
		{nil, root, ""},
		{asNobody, none, "exec.yaml:10:9: the flow get"},
		{asNobody, nobody, ""},
	} {
		err := file.Permit(c.overrides, c.permission)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%v, %s: %v; want %s", c.overrides, c.permission, err, c.want)
		}
	}
	points, err := file.Expand(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := ExecNeeds(points[0]); got != nobody {
		t.Errorf("the first point needs %s", got)
	}
	if got := ExecNeeds(points[1]); got != root {
		t.Errorf("the second point needs %s", got)
	}
	var broken Violations
	if err := Permit(points[1], nobody); !errors.As(err, &broken) || broken[0].Field != "experiments[0].flows[1]" {
		t.Errorf("%v", err)
	}
	if err := Permit(points[1], root); err != nil {
		t.Error(err)
	}
	// Ports are anybody's where an unprivileged server must have them.
	if got := points[0].GetNodes()[1].GetSysctls()[portsSysctl]; got != "0" {
		t.Errorf("%s is %q", portsSysctl, got)
	}
}

// What tcplab brings along needs no permission, byte for byte.
func TestBroughtAlong(t *testing.T) {
	for _, info := range List() {
		src, err := Load(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		if !broughtAlong(src) {
			t.Errorf("%s is not known again", info.Name)
		}
		src.Content = append(src.Content, '\n')
		if broughtAlong(src) {
			t.Errorf("%s is known again with a byte more", info.Name)
		}
	}
}
