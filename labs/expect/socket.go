package expect

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/common/types"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Names of the object types of `sockets`.
const (
	socketsType = "Sockets" // sockets: one field a node of the lab
	statesType  = "States"  // sockets.NODE: one field a TCP state, in lower case
)

// stateNames are the TCP states as expressions call them: "time_wait".
func stateNames() []string {
	states := tcplabv1.TcpState(0).Descriptor().Values()
	var names []string
	for i := range states.Len() {
		if states.Get(i).Number() != 0 {
			names = append(names, strings.ToLower(strings.TrimPrefix(string(states.Get(i).Name()), "TCP_STATE_")))
		}
	}
	return names
}

// socketsObject is `sockets` of one trial. A state in which no socket was has totals of 0.
func socketsObject(result *tcplabv1.TrialResult) *object {
	return &object{typ: types.NewObjectType(socketsType), get: func(node string) (any, error) {
		for _, sockets := range result.GetSockets() {
			if sockets.GetNode() == node {
				return statesObject(sockets), nil
			}
		}
		return nil, fmt.Errorf("the sockets of %s were not followed: give the experiment `observe: {states: true}`", node)
	}}
}

func statesObject(sockets *tcplabv1.NodeSockets) *object {
	return &object{typ: types.NewObjectType(statesType), get: func(name string) (any, error) {
		if lost := sockets.GetLost(); lost > 0 {
			return nil, fmt.Errorf("the states of %s cannot be compared: %d changes were lost, for they came faster than they were read", sockets.GetNode(), lost)
		}
		totals := &tcplabv1.StateTotals{State: tcplabv1.TcpState(tcplabv1.TcpState_value["TCP_STATE_"+strings.ToUpper(name)])}
		for _, s := range sockets.GetStates() {
			if s.GetState() == totals.GetState() {
				totals = s
			}
		}
		return messageObject("sockets."+sockets.GetNode()+"."+name, totals.ProtoReflect()), nil
	}}
}
