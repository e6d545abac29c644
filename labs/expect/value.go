package expect

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/labs/theory"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// object is a CEL value whose fields are read when they are asked for; the
// schema has checked that they exist.
type object struct {
	typ   *types.Type
	get   func(field string) (any, error) // a ref.Val, or why there is none
	value any                             // of a constant without fields; else nil
}

// ConvertToNative implements ref.Val.
func (o *object) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("%s is no %v", o.typ, t)
}

// ConvertToType implements ref.Val.
func (o *object) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("%s is no %s", o.typ, t.TypeName())
}

// Equal implements ref.Val. The environment offers no comparison of objects.
func (o *object) Equal(other ref.Val) ref.Val { return types.Bool(o == other) }

// Type implements ref.Val.
func (o *object) Type() ref.Type { return o.typ }

// Value implements ref.Val: the object itself, from which fields are read.
func (o *object) Value() any { return o }

// adapter lets objects pass into CEL as they are.
type adapter struct{ types.Adapter }

// NativeToValue implements types.Adapter.
func (a adapter) NativeToValue(v any) ref.Val {
	if o, ok := v.(*object); ok {
		return o
	}
	return a.Adapter.NativeToValue(v)
}

// number is a finite number as a CEL value.
func number(v float64, what string) (any, error) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, fmt.Errorf("%s is %v, which is no number", what, v)
	}
	return types.Double(v), nil
}

// flowsObject is `flow` of one trial.
func flowsObject(result *tcplabv1.TrialResult) *object {
	return &object{typ: types.NewObjectType(flowsType), get: func(name string) (any, error) {
		for _, flow := range result.GetFlows() {
			if flow.GetName() == name {
				return flowObject(flow), nil
			}
		}
		return nil, fmt.Errorf("the trial has no result of the flow %s", name)
	}}
}

// flowObject is one flow. Of a flow that failed only what it is, how it ended and what was
// counted until then can be read: a latency or a goodput would be of a part of it.
func flowObject(flow *tcplabv1.FlowResult) *object {
	path := "flow." + flow.GetName()
	o := messageObject(path, flow.ProtoReflect())
	read := o.get
	o.get = func(side string) (any, error) {
		name := side
		if flow.GetError() != "" && isOfTheWhole(name) {
			return nil, fmt.Errorf("the flow %s failed: %s", flow.GetName(), flow.GetError())
		}
		if name == connectionErrors {
			connections, err := read("connections")
			if err != nil {
				return nil, err
			}
			return connections.(*object).get(name)
		}
		if name == "metrics" {
			return metricsObject(flow), nil
		}
		v, err := read(name)
		end, ok := v.(*object)
		if err != nil || !ok || (name != "client" && name != "server") {
			return v, err
		}
		readEnd := end.get
		end.get = func(name string) (any, error) {
			if isFlowWide(name) {
				return o.get(name)
			}
			v, err := readEnd(name)
			if err == nil && name == "state_path" && v == types.String("") {
				return nil, fmt.Errorf("%s.%s.state_path was not followed: give the experiment `observe: {states: true}`", path, side)
			}
			return v, err
		}
		return end, nil
	}
	return o
}

// isOfTheWhole reports whether a field of FlowResult is a figure that a part of a flow does not
// have.
func isOfTheWhole(name string) bool {
	return name == "goodput_bps" || name == "latency" || name == "uncorrected"
}

// messageObject is a message of the contract; path names it in errors.
func messageObject(path string, message protoreflect.Message) *object {
	descriptor := message.Descriptor()
	empty := emptySummary(message)
	return &object{typ: types.NewObjectType(string(descriptor.FullName())), get: func(name string) (any, error) {
		fd := descriptor.Fields().ByName(protoreflect.Name(name))
		path := path + "." + name
		if empty && name != "count" {
			return nil, fmt.Errorf("%s is of no measurement: the count is 0", path)
		}
		v := message.Get(fd)
		switch {
		case fd.IsList():
			elements := make([]ref.Val, v.List().Len())
			for i := range elements {
				elements[i] = messageObject(fmt.Sprintf("%s[%d]", path, i), v.List().Get(i).Message())
			}
			return types.NewRefValList(adapter{types.DefaultTypeAdapter}, elements), nil
		case isDuration(fd):
			d, ok := v.Message().Interface().(*durationpb.Duration)
			if !ok {
				return nil, fmt.Errorf("%s is not a duration", path)
			}
			return types.Double(d.AsDuration().Seconds()), nil
		case fd.Message() != nil:
			if !message.Has(fd) {
				return nil, fmt.Errorf("%s was not reported", path)
			}
			return messageObject(path, v.Message()), nil
		}
		switch x := v.Interface().(type) {
		case protoreflect.EnumNumber:
			return types.String(enumText(fd.Enum(), x)), nil
		case string:
			return types.String(x), nil
		case bool:
			return types.Bool(x), nil
		case float64:
			return number(x, path)
		case float32:
			return number(float64(x), path)
		case int32:
			return types.Double(x), nil
		case int64:
			return types.Double(x), nil
		case uint32:
			return types.Double(x), nil
		case uint64:
			return types.Double(x), nil
		}
		return nil, fmt.Errorf("%s cannot be read in an expression", path)
	}}
}

// emptySummary reports whether a message describes durations, of which there are none.
func emptySummary(message protoreflect.Message) bool {
	switch summary := message.Interface().(type) {
	case *tcplabv1.LatencySummary:
		return summary.GetCount() == 0
	case *tcplabv1.CapturedTimes:
		return summary.GetCount() == 0
	}
	return false
}

// nodesObject is `counter` of one trial.
func nodesObject(result *tcplabv1.TrialResult) *object {
	return &object{typ: types.NewObjectType(nodesType), get: func(node string) (any, error) {
		for _, counters := range result.GetCounters() {
			if counters.GetNode() == node {
				return countersObject(counters), nil
			}
		}
		return nil, fmt.Errorf("the trial has no counters of the node %s", node)
	}}
}

func countersObject(counters *tcplabv1.NodeCounters) *object {
	return &object{typ: types.NewObjectType(countersType), get: func(name string) (any, error) {
		if v, ok := counters.GetValues()[name]; ok {
			return types.Double(v), nil
		}
		names := make([]string, 0, len(counters.GetValues()))
		for known := range counters.GetValues() {
			names = append(names, known)
		}
		return nil, fmt.Errorf("the kernel of %s has no counter %s%s", counters.GetNode(), name, didYouMean(name, names))
	}}
}

// kernelObject is `kernel`.
func kernelObject(kernel *tcplabv1.Kernel) *object {
	o := messageObject("kernel", kernel.ProtoReflect())
	read := o.get
	o.get = func(name string) (any, error) {
		switch name {
		case "hz", "jiffy":
			if kernel.GetHz() == 0 {
				return nil, fmt.Errorf("kernel.%s is not known of this kernel", name)
			}
		}
		if name == "jiffy" {
			return types.Double(theory.Jiffy(int(kernel.GetHz())).Seconds()), nil
		}
		return read(name)
	}
	return o
}

// enumText is a value of an enum as expressions know it: its name in lower case, without
// the enum's ("refused" for FLOW_OUTCOME_REFUSED); empty where it is not set.
func enumText(enum protoreflect.EnumDescriptor, number protoreflect.EnumNumber) string {
	value := enum.Values().ByNumber(number)
	if value == nil || number == 0 {
		return ""
	}
	// By the contract's naming the value of 0 is the enum's name and UNSPECIFIED.
	prefix := strings.TrimSuffix(string(enum.Values().ByNumber(0).Name()), "UNSPECIFIED")
	return strings.ToLower(strings.TrimPrefix(string(value.Name()), prefix))
}
