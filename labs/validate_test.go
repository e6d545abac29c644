package labs

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// TestValidateWire breaks a valid Lab in the ways that no file can, for they
// are not in its grammar.
func TestValidateWire(t *testing.T) {
	tests := []struct {
		name string
		edit func(*tcplabv1.Lab)
		want string // "field: message"
	}{
		{"NaN loss", func(l *tcplabv1.Lab) { l.Links[0].Forward.Shape.Loss = math.NaN() }, "links[0].forward.shape.loss: NaN is not a probability"},
		{"loss above 1", func(l *tcplabv1.Lab) { l.Links[0].Backward.Shape.Loss = 1.5 }, "links[0].backward.shape.loss: 1.5 is not a probability"},
		{"infinite rate", func(l *tcplabv1.Lab) { l.Links[0].Forward.Shape.RateBps = math.Inf(1) }, "links[0].forward.shape.rate_bps: +Inf is not a rate"},
		{"negative delay", func(l *tcplabv1.Lab) { l.Links[0].Forward.Shape.Delay = durationpb.New(-1) }, "links[0].forward.shape.delay: the delay is negative"},
		{"no limit", func(l *tcplabv1.Lab) { l.Links[0].Forward.Shape.Queue = &tcplabv1.Queue{} }, "links[0].forward.shape.queue: the queue has no limit"},
		{"short queue", func(l *tcplabv1.Lab) {
			l.Links[0].Forward.Shape.Queue = &tcplabv1.Queue{Limit: &tcplabv1.Queue_Time{Time: durationpb.New(1000)}}
		}, "links[0].forward.shape.queue: a queue of 1 bytes does not hold one frame of 1514"},
		{"no end", func(l *tcplabv1.Lab) { l.Links[0].B = nil }, `links[0].b: unknown node ""`},
		{"interface", func(l *tcplabv1.Lab) { l.Links[0].A.Interface = "eth 0" }, `links[0].a.interface: "eth 0" cannot be an interface's name`},
		{"loopback", func(l *tcplabv1.Lab) { l.Links[0].A.Interface = "lo" }, `links[0].a.interface: "lo" cannot be an interface's name`},
		{"interface twice", func(l *tcplabv1.Lab) { l.Links[1].A.Interface = l.Links[0].A.Interface }, `links[1].a.interface: the node "client" has two interfaces "eth0"`},
		{"MAC", func(l *tcplabv1.Lab) { l.Links[0].A.Mac = "02:00" }, `links[0].a.mac: "02:00" is not a MAC address`},
		{"multicast MAC", func(l *tcplabv1.Lab) { l.Links[0].A.Mac = "01:00:5e:00:00:01" }, `links[0].a.mac: "01:00:5e:00:00:01" is not the address of one interface`},
		{"MAC twice", func(l *tcplabv1.Lab) { l.Links[0].A.Mac = l.Links[0].B.Mac }, "links[0].b.mac: two interfaces have the MAC address"},
		{"parameter", func(l *tcplabv1.Lab) { l.Point = map[string]*structpb.Value{"x": structpb.NewNullValue()} }, `point["x"]: the parameter "x" is not a quantity, number, boolean or text`},
		{"NaN parameter", func(l *tcplabv1.Lab) {
			l.Point = map[string]*structpb.Value{"x": structpb.NewNumberValue(math.NaN())}
		}, `point["x"]: the parameter "x" is not a finite number`},
		{"no amount", func(l *tcplabv1.Lab) { l.Experiments[0].Flows[0].GetBulk().Amount = nil }, "experiments[0].flows[0].bulk: how much the flow sends is missing"},
		{"no kind", func(l *tcplabv1.Lab) { l.Experiments[0].Flows[0].Kind = nil }, "experiments[0].flows[0].kind: exactly one field is required in oneof"},
		{"congestion", func(l *tcplabv1.Lab) { l.Experiments[0].Flows[0].Socket.Congestion = "cubic; rm" }, `experiments[0].flows[0].socket.congestion: "cubic; rm" is not a congestion control's name`},
		{"low ports first", func(l *tcplabv1.Lab) {
			l.Experiments[0].Flows[0].Socket.LocalPorts = &tcplabv1.PortRange{First: 9, Last: 8}
		}, "experiments[0].flows[0].socket.local_ports: the range 9-8 ends before it begins"},
		{"queue of no Fast Open", func(l *tcplabv1.Lab) { l.Experiments[0].Flows[0].Socket.FastOpenQueue = 3 }, "experiments[0].flows[0].socket.fast_open_queue: there is no queue without fast_open"},
		{"Fast Open that the node forbids", func(l *tcplabv1.Lab) {
			l.Nodes[1].Sysctls = map[string]string{"net.ipv4.tcp_fastopen": "1"}
			l.Experiments[0].Flows[0].Socket.FastOpen = true
		}, "experiments[0].flows[0].socket.fast_open: server sets net.ipv4.tcp_fastopen to 1"},
		{"ECN that the node has not", func(l *tcplabv1.Lab) {
			l.Nodes[0].Sysctls = map[string]string{"net.ipv4.tcp_ecn": "0"}
			l.Experiments[0].Flows[0].Socket.Ecn = new(true)
		}, "experiments[0].flows[0].socket.ecn: client has net.ipv4.tcp_ecn = 0, not 1"},
		{"keep-alive of half a second", func(l *tcplabv1.Lab) {
			l.Experiments[0].Flows[0].Socket.KeepAlive = &tcplabv1.KeepAlive{Idle: durationpb.New(time.Second / 2)}
		}, "experiments[0].flows[0].socket.keep_alive.idle: 500ms is not a whole number of seconds"},
		{"user timeout of half a millisecond", func(l *tcplabv1.Lab) {
			l.Experiments[0].Flows[0].Socket.UserTimeout = durationpb.New(time.Millisecond / 2)
		}, "experiments[0].flows[0].socket.user_timeout: 500µs is not a whole number of milliseconds"},
		{"burst of too many writes", func(l *tcplabv1.Lab) {
			l.Experiments[0].Flows[0].Kind = &tcplabv1.Flow_Burst{Burst: &tcplabv1.Burst{Writes: []uint32{1, 1}, Count: 5001}}
		}, "experiments[0].flows[0].burst.count: 5001 rounds of 2 writes are more than 10000 writes"},
		{"burst with a gap too many", func(l *tcplabv1.Lab) {
			l.Experiments[0].Flows[0].Kind = &tcplabv1.Flow_Burst{Burst: &tcplabv1.Burst{Writes: []uint32{1}, Gaps: []*durationpb.Duration{{}, {}}}}
		}, "experiments[0].flows[0].burst.gaps: there are 2 gaps for 1 writes"},
		{"burst that never ends", func(l *tcplabv1.Lab) {
			l.Experiments[0].Flows[0].Kind = &tcplabv1.Flow_Burst{Burst: &tcplabv1.Burst{Writes: []uint32{1}, Count: 7, Gaps: []*durationpb.Duration{{Seconds: 10}}}}
		}, "experiments[0].flows[0].burst.gaps: the gaps take 1m0s, and the experiment ends after 1m0s"},
		{"open loop that thinks", func(l *tcplabv1.Lab) {
			l.Experiments[0].Flows[0].Kind = &tcplabv1.Flow_Transaction{Transaction: &tcplabv1.Transaction{Writes: []uint32{1}, Reply: 1, Count: 2, Rate: 5, ThinkTime: durationpb.New(1)}}
		}, "experiments[0].flows[0].transaction.think_time: with a rate the client does not think"},
		{"open loop that never ends", func(l *tcplabv1.Lab) {
			l.Experiments[0].Flows[0].Kind = &tcplabv1.Flow_Transaction{Transaction: &tcplabv1.Transaction{Writes: []uint32{1}, Reply: 1, Count: 121, Rate: 2}}
		}, "experiments[0].flows[0].transaction.rate: the last request is due after 60 s, and the experiment ends after 1m0s"},
		{"sysctl with a path", func(l *tcplabv1.Lab) { l.Nodes[0].Sysctls = map[string]string{"net.ipv4/../../kernel.x": "1"} }, `nodes[0].sysctls["net.ipv4/../../kernel.x"]: "net.ipv4/../../kernel.x" is not a sysctl's name`},
		{"sysctl of two lines", func(l *tcplabv1.Lab) { l.Nodes[0].Sysctls = map[string]string{"net.ipv4.tcp_sack": "1\n0"} }, `nodes[0].sysctls["net.ipv4.tcp_sack"]: the value of net.ipv4.tcp_sack is not one line`},
		{"enum", func(l *tcplabv1.Lab) { l.Links[0].Engine = 99 }, "links[0].engine: value must be one of the defined enum values"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := expandAll(t, lab("links: [{between: [client, server], rate: 10Mbit}, {between: [client, server]}]"), 1)[0]
			tt.edit(l)
			err := Validate(l)
			var violations Violations
			if !errors.As(err, &violations) {
				t.Fatalf("Validate = %v, want Violations", err)
			}
			if !strings.HasPrefix(violations.Error(), tt.want) {
				t.Errorf("Validate says\n%v\nwant first\n%s", err, tt.want)
			}
		})
	}
}

func TestValidateEmpty(t *testing.T) {
	for _, l := range []*tcplabv1.Lab{nil, {}, {Links: []*tcplabv1.Link{nil, {}}, Nodes: []*tcplabv1.Node{nil}, Experiments: []*tcplabv1.Experiment{nil}}} {
		if err := Validate(l); err == nil {
			t.Errorf("Validate(%v) found nothing", l)
		}
	}
}
