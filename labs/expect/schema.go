package expect

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Names of the object types that are not messages of the contract.
const (
	flowsType    = "Flows"    // flow: one field a flow of the lab
	nodesType    = "Nodes"    // counter: one field a node of the lab
	countersType = "Counters" // counter.NODE: one field a counter
	theoryType   = "Theory"   // theory: its constants
)

// counterName is the form of a kernel counter's name. Which there are depends
// on the kernel, so that a name is only looked up when it is evaluated.
var counterName = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{2,63}$`)

// schema says which fields each object has and of which type: CEL's type
// provider for one lab. Messages come from the contract by reflection, so that
// expressions know every field that TrialResult has, and no other.
type schema struct {
	types.Provider
	flows, nodes, links, captured []string
	metrics                       map[string][]string // of exec flows, by flow
	messages                      map[string]protoreflect.MessageDescriptor
}

func newSchema(lab *tcplabv1.Lab, base types.Provider) *schema {
	s := &schema{Provider: base, metrics: metricsOf(lab), messages: map[string]protoreflect.MessageDescriptor{}}
	for _, node := range lab.GetNodes() {
		s.nodes = append(s.nodes, node.GetName())
	}
	for _, experiment := range lab.GetExperiments() {
		for _, flow := range experiment.GetFlows() {
			s.flows = append(s.flows, flow.GetName())
		}
		for _, node := range experiment.GetCapture().GetNodes() {
			if !slices.Contains(s.captured, node) {
				s.captured = append(s.captured, node)
			}
		}
	}
	for _, link := range lab.GetLinks() {
		s.links = append(s.links, link.GetName())
	}
	s.add((*tcplabv1.FlowResult)(nil).ProtoReflect().Descriptor())
	s.add((*tcplabv1.Kernel)(nil).ProtoReflect().Descriptor())
	s.add((*tcplabv1.CapturedFlow)(nil).ProtoReflect().Descriptor())
	s.add((*tcplabv1.QueueSummary)(nil).ProtoReflect().Descriptor())
	s.add((*tcplabv1.StateTotals)(nil).ProtoReflect().Descriptor())
	return s
}

// add takes a message and those below it into the schema.
func (s *schema) add(message protoreflect.MessageDescriptor) {
	if _, ok := s.messages[string(message.FullName())]; ok {
		return
	}
	s.messages[string(message.FullName())] = message
	for i := range message.Fields().Len() {
		if field := message.Fields().Get(i); field.Message() != nil && !field.IsMap() && !isDuration(field) {
			s.add(field.Message())
		}
	}
}

// field is one field of an object: its type, the unit of its numbers, and the words that
// it can be, if it is one of a few.
type field struct {
	typ   *types.Type
	unit  string
	words []string
}

// field looks a field up; ok is false where the object has none of the name.
func (s *schema) field(object, name string) (f field, ok bool) {
	switch object {
	case flowsType:
		if len(s.metrics[name]) > 0 {
			return field{typ: types.NewObjectType(execPrefix + name)}, true
		}
		return field{typ: messageType((*tcplabv1.FlowResult)(nil))}, slices.Contains(s.flows, name)
	case nodesType:
		return field{typ: types.NewObjectType(countersType)}, slices.Contains(s.nodes, name)
	case countersType:
		return field{typ: types.DoubleType}, counterName.MatchString(name)
	case socketsType:
		return field{typ: types.NewObjectType(statesType)}, slices.Contains(s.nodes, name)
	case statesType:
		return field{typ: messageType((*tcplabv1.StateTotals)(nil))}, slices.Contains(stateNames(), name)
	case linksType:
		return field{typ: types.NewObjectType(linkType)}, slices.Contains(s.links, name)
	case linkType:
		_, ok := ways()[name]
		return field{typ: types.NewObjectType(wayType)}, ok
	case wayType:
		return wayField(name)
	case capturesType:
		return field{typ: types.NewObjectType(captureType)}, slices.Contains(s.captured, name)
	case captureType:
		return captureField(name)
	case capturedFlowsType:
		return field{typ: messageType((*tcplabv1.CapturedFlow)(nil))}, slices.Contains(s.flows, name)
	case programType:
		return programField(name)
	case theoryType:
		constant, ok := theoryConstants()[name]
		return field{typ: constant.typ, unit: constant.unit}, ok
	}
	if f, ok, ours := s.execField(object, name); ours {
		return f, ok
	}
	message, ok := s.messages[object]
	if !ok {
		return field{}, false
	}
	if message == (*tcplabv1.Kernel)(nil).ProtoReflect().Descriptor() && name == "jiffy" {
		return field{typ: types.DoubleType, unit: "s"}, true
	}
	switch {
	case isFlowEnd(message) && isFlowWide(name):
		message = (*tcplabv1.FlowResult)(nil).ProtoReflect().Descriptor()
	case message == (*tcplabv1.FlowResult)(nil).ProtoReflect().Descriptor() && name == connectionErrors:
		message = (*tcplabv1.Connections)(nil).ProtoReflect().Descriptor()
	}
	return fieldOf(message.Fields().ByName(protoreflect.Name(name)))
}

// names lists the fields of an object, for suggestions; none where they are
// open.
func (s *schema) names(object string) []string {
	switch object {
	case flowsType, capturedFlowsType:
		return s.flows
	case capturesType:
		return s.captured
	case captureType:
		return captureNames()
	case nodesType:
		return s.nodes
	case socketsType:
		return s.nodes
	case statesType:
		return stateNames()
	case linksType:
		return s.links
	case linkType:
		return slices.Sorted(maps.Keys(ways()))
	case wayType:
		return wayNames()
	case programType:
		return []string{"json", "status", "elapsed"}
	case theoryType:
		var names []string
		for name := range theoryConstants() {
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	if flow, ok := strings.CutPrefix(object, metricPrefix); ok {
		return s.metrics[flow]
	}
	if strings.HasPrefix(object, execPrefix) {
		return append(s.names(messageType((*tcplabv1.FlowResult)(nil)).TypeName()), "metrics")
	}
	message, ok := s.messages[object]
	if !ok {
		return nil
	}
	var names []string
	for i := range message.Fields().Len() {
		if _, ok := fieldOf(message.Fields().Get(i)); ok {
			names = append(names, string(message.Fields().Get(i).Name()))
		}
	}
	switch {
	case message == (*tcplabv1.Kernel)(nil).ProtoReflect().Descriptor():
		names = append(names, "jiffy")
	case isFlowEnd(message):
		names = append(names, "connect", "latency")
	case message == (*tcplabv1.FlowResult)(nil).ProtoReflect().Descriptor():
		names = append(names, connectionErrors)
	}
	return names
}

// fieldOf is a message's field as expressions see it: every number and duration is a
// double, and a value of an enum a text (see [enumText]). Fields of other kinds are not visible.
func fieldOf(fd protoreflect.FieldDescriptor) (field, bool) {
	switch {
	case fd == nil || fd.IsMap():
		return field{}, false
	case fd.IsList():
		if fd.Message() == nil {
			return field{}, false
		}
		return field{typ: types.NewListType(types.NewObjectType(string(fd.Message().FullName())))}, true
	case isDuration(fd):
		return field{typ: types.DoubleType, unit: "s"}, true
	}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return field{typ: types.NewObjectType(string(fd.Message().FullName()))}, true
	case protoreflect.EnumKind:
		var words []string
		for i := range fd.Enum().Values().Len() {
			if number := fd.Enum().Values().Get(i).Number(); number != 0 {
				words = append(words, enumText(fd.Enum(), number))
			}
		}
		return field{typ: types.StringType, words: words}, true
	case protoreflect.StringKind:
		return field{typ: types.StringType}, true
	case protoreflect.BoolKind:
		return field{typ: types.BoolType}, true
	case protoreflect.DoubleKind, protoreflect.FloatKind,
		protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind,
		protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind,
		protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return field{typ: types.DoubleType, unit: unitOf(string(fd.Name()))}, true
	}
	return field{}, false
}

// unitOf is the unit of a number by the contract's naming: rates end in _bps;
// sizes are called bytes, an MSS or a window in bytes.
func unitOf(name string) string {
	switch {
	case strings.HasSuffix(name, "_bps"):
		return "bit/s"
	case strings.HasPrefix(name, "bytes"), strings.HasSuffix(name, "_mss"), name == "mss", name == "snd_wnd":
		return "B"
	}
	return ""
}

func isDuration(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && fd.Message().FullName() == (*durationpb.Duration)(nil).ProtoReflect().Descriptor().FullName()
}

func isFlowEnd(message protoreflect.MessageDescriptor) bool {
	return message == (*tcplabv1.FlowEnd)(nil).ProtoReflect().Descriptor()
}

// isFlowWide reports whether a field of FlowResult may be written behind the end that
// measured it, too: flow.get.client.latency is flow.get.latency.
func isFlowWide(name string) bool { return name == "connect" || name == "latency" }

// connectionErrors is a field of Connections that may be written behind the flow: flow.NAME.errors is
// flow.NAME.connections.errors.
const connectionErrors = "errors"

func messageType(m protoreflect.ProtoMessage) *types.Type {
	return types.NewObjectType(string(m.ProtoReflect().Descriptor().FullName()))
}

// FindStructType implements types.Provider.
func (s *schema) FindStructType(name string) (*types.Type, bool) {
	switch name {
	case flowsType, nodesType, countersType, theoryType, linksType, linkType, wayType, capturesType, captureType, capturedFlowsType, programType, socketsType, statesType:
	default:
		_, ok := s.messages[name]
		if !ok && !strings.HasPrefix(name, execPrefix) && !strings.HasPrefix(name, metricPrefix) {
			return nil, false
		}
	}
	return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
}

// FindStructFieldNames implements types.Provider.
func (s *schema) FindStructFieldNames(object string) ([]string, bool) {
	_, ok := s.FindStructType(object)
	return s.names(object), ok
}

// FindStructFieldType implements types.Provider. Values are read from
// [object].
func (s *schema) FindStructFieldType(objectType, name string) (*types.FieldType, bool) {
	f, ok := s.field(objectType, name)
	if !ok {
		return nil, false
	}
	return &types.FieldType{
		Type:  f.typ,
		IsSet: func(any) bool { return true },
		GetFrom: func(target any) (any, error) {
			return target.(*object).get(name)
		},
	}, true
}

// NewValue implements types.Provider: expressions build no messages.
func (s *schema) NewValue(name string, _ map[string]ref.Val) ref.Val {
	return types.NewErr("%s cannot be built in an expression", name)
}
