package labs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/testing/protocmp"
)

// flowWithSocket is a lab whose one flow has the socket options, which start at line 7.
func flowWithSocket(socket string) Source {
	return Source{Name: "lab.yaml", Content: []byte(`name: test
nodes: [client, server]
links: [{between: [client, server]}]
experiments:
  - flows:
      - name: up
        socket: ` + socket + `
        bulk: {from: client, to: server, bytes: 1MB}
`)}
}

func TestSocketOptionsInWords(t *testing.T) {
	for words, want := range map[string]string{
		"{dscp: ef}":                 "dscp: 46",
		"{dscp: af41}":               "dscp: 34",
		"{dscp: cs1}":                "dscp: 8",
		"{dscp: 63}":                 "dscp: 63",
		"{local_ports: 4000-4009}":   "local_ports: {first: 4000 last: 4009}",
		"{local_ports: 4000}":        "local_ports: {first: 4000 last: 4000}",
		"{linger: 0}":                "linger: {}",
		"{fast_open: true}":          "fast_open: true fast_open_queue: 128",
		"{keep_alive: {idle: 1min}}": "keep_alive: {idle: {seconds: 60}}",
		"{ecn: false, mark: 7}":      "ecn: false mark: 7",
	} {
		lab := expandAll(t, flowWithSocket(words), 1)[0]
		got := lab.GetExperiments()[0].GetFlows()[0].GetSocket()
		asked := got.ProtoReflect().New().Interface()
		if err := prototext.Unmarshal([]byte("no_delay: true "+want), asked); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(asked, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", words, diff)
		}
	}
}

func TestSocketOptionsThatMakeNoSense(t *testing.T) {
	for words, want := range map[string]string{
		"{dscp: 64}":          `lab.yaml:7:24: want a code point, not "64" (0 to 63, cs0 to cs7, af11 to af43, ef or le)`,
		"{dscp: af14}":        `lab.yaml:7:24: want a code point, not "af14" (did you mean "af11"?)`,
		"{local_ports: 9-8}":  `lab.yaml:7:31: the range 9-8 ends before it begins`,
		"{local_ports: 0-8}":  `lab.yaml:7:31: want a range of ports, not "0-8" (such as 40000-40099; ports are 1 to 65535)`,
		"{local_ports: many}": `lab.yaml:7:31: want a range of ports, not "many" (such as 40000-40099; ports are 1 to 65535)`,
	} {
		f, err := Parse(flowWithSocket(words))
		if err == nil {
			_, err = f.Expand(nil)
		}
		if err == nil {
			t.Errorf("%s: accepted", words)
		} else if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", words, diff)
		}
	}
}

// What options need of the nodes is written into them, and nothing that they say is
// changed.
func TestNodesGetWhatOptionsNeed(t *testing.T) {
	lab := expandAll(t, flowWithSocket("{fast_open: true, ecn: true}"), 1)[0]
	want := map[string]string{fastOpenSysctl: "3", ecnSysctl: "1"}
	for _, n := range lab.GetNodes() {
		if diff := cmp.Diff(want, n.GetSysctls()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", n.GetName(), diff)
		}
	}
	lab = expandAll(t, Reference(), 2)[0]
	lab.GetNodes()[0].Sysctls = map[string]string{fastOpenSysctl: "0x603"}
	Complete(lab)
	if got := lab.GetNodes()[0].GetSysctls()[fastOpenSysctl]; got != "0x603" {
		t.Errorf("a sysctl that is set became %s", got)
	}
}
