package standing

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// merge takes the fields that the paths name from one link into another: below forward and
// backward any that Direction has, whatever those are.
func merge(into, from *tcplabv1.DeployedLink, paths []string) error {
	if len(paths) == 0 {
		return rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "the update mask names no field")
	}
	from = proto.CloneOf(from) // what is taken is not shared with the request
	refusal := rpcerr.New(codes.InvalidArgument, rpcerr.RequestInvalid, "", "the update mask names what cannot be updated")
	for i, path := range paths {
		if path == "*" {
			into.Forward, into.Backward = from.GetForward(), from.GetBackward()
			continue
		}
		fields, err := resolve(path)
		if err != nil {
			refusal.Violations = append(refusal.Violations, rpcerr.Violation{Field: fmt.Sprintf("update_mask.paths[%d]", i), Description: err.Error()})
			continue
		}
		take(into.ProtoReflect(), from.ProtoReflect(), fields)
	}
	if len(refusal.Violations) > 0 {
		return refusal
	}
	return nil
}

// take copies the field at the end of the chain, or clears it where the other
// message has none.
func take(into, from protoreflect.Message, chain []protoreflect.FieldDescriptor) {
	field := chain[0]
	switch {
	case len(chain) > 1 && (from.Has(field) || into.Has(field)):
		take(into.Mutable(field).Message(), from.Get(field).Message(), chain[1:])
	case from.Has(field) && len(chain) == 1:
		into.Set(field, from.Get(field))
	default:
		into.Clear(field)
	}
}

// resolve finds the fields of a path from a link on: by their names in the contract, and those
// of Shape and of what carries a unit in its name by what people call them.
func resolve(path string) ([]protoreflect.FieldDescriptor, error) {
	at := (&tcplabv1.DeployedLink{}).ProtoReflect().Descriptor()
	way, rest, deeper := strings.Cut(path, ".")
	if way != "forward" && way != "backward" {
		return nil, fmt.Errorf("%q: only what is below forward and backward can be updated", path)
	}
	chain := []protoreflect.FieldDescriptor{at.Fields().ByName(protoreflect.Name(way))}
	for deeper {
		var name string
		name, rest, deeper = strings.Cut(rest, ".")
		last := chain[len(chain)-1]
		if last.IsList() || last.IsMap() || last.Message() == nil || last.Message().FullName() == (&durationpb.Duration{}).ProtoReflect().Descriptor().FullName() {
			return nil, fmt.Errorf("%q: %s is replaced whole", path, last.Name())
		}
		at = last.Message()
		found := fieldOf(at, name)
		if found == nil && len(chain) == 1 {
			shape := at.Fields().ByName("shape")
			if found = fieldOf(shape.Message(), name); found != nil {
				chain = append(chain, shape)
			}
		}
		if found == nil {
			return nil, fmt.Errorf("%q: there is no %s; there are %s", path, name, strings.Join(fieldNames(at), ", "))
		}
		chain = append(chain, found)
	}
	return chain, nil
}

// units end the names of fields that are numbers in them.
func units() []string { return []string{"_bps", "_bytes", "_ms"} }

// fieldOf finds a field by its name, or by that without its unit.
func fieldOf(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := m.Fields().ByName(protoreflect.Name(name)); f != nil {
		return f
	}
	for _, unit := range units() {
		if f := m.Fields().ByName(protoreflect.Name(name + unit)); f != nil {
			return f
		}
	}
	return nil
}

// fieldNames are a message's fields as people call them; of a direction those of its
// shape first.
func fieldNames(m protoreflect.MessageDescriptor) []string {
	var names []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if f.Name() == "shape" {
			names = slices.Insert(names, 0, fieldNames(f.Message())...)
			continue
		}
		names = append(names, called(f))
	}
	return names
}

// called is a field's name without its unit.
func called(f protoreflect.FieldDescriptor) string {
	name := string(f.Name())
	for _, unit := range units() {
		name = strings.TrimSuffix(name, unit)
	}
	return name
}

// difference is a field of a direction that has changed.
type difference struct {
	path, before, after string
}

// differences are the fields in which two directions differ, as people call them.
func differences(before, after *tcplabv1.Direction) []difference {
	return differing("", before.ProtoReflect(), after.ProtoReflect())
}

func differing(path string, before, after protoreflect.Message) []difference {
	var all []difference
	fields := before.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !before.Has(f) && !after.Has(f) || before.Get(f).Equal(after.Get(f)) {
			continue
		}
		if f.Name() == "shape" {
			all = append(all, differing(path, before.Get(f).Message(), after.Get(f).Message())...)
			continue
		}
		all = append(all, difference{path + called(f), text(before, f), text(after, f)})
	}
	return all
}

// text is a field's value for people.
func text(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	if !m.Has(f) {
		return "not set"
	}
	v := m.Get(f)
	switch {
	case f.IsList():
		return strconv.Itoa(v.List().Len()) + " of them"
	case f.Message() != nil:
		if d, ok := v.Message().Interface().(*durationpb.Duration); ok {
			return d.AsDuration().String()
		}
		// Its spacing varies between builds, on purpose.
		words := strings.Fields(prototext.MarshalOptions{}.Format(v.Message().Interface()))
		return strings.Join(words, " ")
	}
	return v.String()
}
