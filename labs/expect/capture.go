package expect

import (
	"fmt"

	"cel.dev/cel-go/common/types"
	"google.golang.org/protobuf/reflect/protoreflect"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Names of the object types of `capture`.
const (
	capturesType      = "Captures"      // capture: one field a node that the lab captures at
	captureType       = "Capture"       // capture.NODE: fields of NodeCapture, and flow
	capturedFlowsType = "CapturedFlows" // capture.NODE.flow: one field a flow of the lab
)

// captureField is a field of one node's capture.
func captureField(name string) (field, bool) {
	switch name {
	case "flow":
		return field{typ: types.NewObjectType(capturedFlowsType)}, true
	case "flows": // a list, of which nobody knows the order
		return field{}, false
	}
	return fieldOf(nodeCapture().Fields().ByName(protoreflect.Name(name)))
}

func nodeCapture() protoreflect.MessageDescriptor {
	return (*tcplabv1.NodeCapture)(nil).ProtoReflect().Descriptor()
}

// captureNames are the fields of one node's capture.
func captureNames() []string {
	names := []string{"flow"}
	for i := range nodeCapture().Fields().Len() {
		if name := string(nodeCapture().Fields().Get(i).Name()); name != "flows" {
			names = append(names, name)
		}
	}
	return names
}

// capturesObject is `capture` of one trial.
func capturesObject(result *tcplabv1.TrialResult) *object {
	return &object{typ: types.NewObjectType(capturesType), get: func(node string) (any, error) {
		for _, capture := range result.GetCaptures() {
			if capture.GetNode() == node {
				return captureObject(capture), nil
			}
		}
		return nil, fmt.Errorf("the trial has no capture of the node %s", node)
	}}
}

// captureObject is one node's capture. What it lost cannot be read, so that connections
// of a capture that is not whole are nothing to compare.
func captureObject(capture *tcplabv1.NodeCapture) *object {
	path := fmt.Sprintf("capture[%q]", capture.GetNode())
	whole := func() error {
		if capture.GetDropped() == 0 && capture.GetLeftOut() == 0 {
			return nil
		}
		return fmt.Errorf("the capture at %s is not whole: %d packets were dropped and %d left out beyond its limit; raise the limit, or capture less",
			capture.GetNode(), capture.GetDropped(), capture.GetLeftOut())
	}
	message := messageObject(path, capture.ProtoReflect())
	return &object{typ: types.NewObjectType(captureType), get: func(name string) (any, error) {
		switch name {
		case "all", "flow":
			if err := whole(); err != nil {
				return nil, err
			}
		}
		if name != "flow" {
			return message.get(name)
		}
		return &object{typ: types.NewObjectType(capturedFlowsType), get: func(name string) (any, error) {
			for _, flow := range capture.GetFlows() {
				if flow.GetName() == name {
					return messageObject(path+".flow."+name, flow.ProtoReflect()), nil
				}
			}
			return nil, fmt.Errorf("at %s no connection of the flow %s was captured", capture.GetNode(), name)
		}}, nil
	}}
}
