package flow

import tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"

// Kind names what a flow does, as its result does (FlowResult.kind): "bulk", "transaction", …;
// empty where it is of no kind.
func Kind(spec *tcplabv1.Flow) string {
	message := spec.ProtoReflect()
	if field := message.WhichOneof(message.Descriptor().Oneofs().ByName("kind")); field != nil {
		return string(field.Name())
	}
	return ""
}
