package expect

import (
	"fmt"

	"cel.dev/cel-go/common/types"
	"google.golang.org/protobuf/reflect/protoreflect"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Names of the object types of `link`.
const (
	linksType = "Links" // link: one field a link of the lab
	linkType  = "Link"  // link.NAME: forward and backward
	wayType   = "Way"   // link.NAME.forward: a field of LinkCounters, lateness or queue
)

// ways are the two directions of a link.
func ways() map[string]tcplabv1.LinkDirection {
	return map[string]tcplabv1.LinkDirection{
		"forward":  tcplabv1.LinkDirection_LINK_DIRECTION_FORWARD,
		"backward": tcplabv1.LinkDirection_LINK_DIRECTION_BACKWARD,
	}
}

// wayField is a field of one direction.
func wayField(name string) (field, bool) {
	switch name {
	case "lateness":
		return field{typ: messageType((*tcplabv1.LatencySummary)(nil))}, true
	case "queue":
		return field{typ: messageType((*tcplabv1.QueueSummary)(nil))}, true
	}
	return fieldOf(linkCounters().Fields().ByName(protoreflect.Name(name)))
}

func linkCounters() protoreflect.MessageDescriptor {
	return (*tcplabv1.LinkCounters)(nil).ProtoReflect().Descriptor()
}

// wayNames are the fields of one direction.
func wayNames() []string {
	var names []string
	for i := range linkCounters().Fields().Len() {
		names = append(names, string(linkCounters().Fields().Get(i).Name()))
	}
	return append(names, "lateness", "queue")
}

// linksObject is `link` of one trial.
func linksObject(result *tcplabv1.TrialResult) *object {
	return &object{typ: types.NewObjectType(linksType), get: func(link string) (any, error) {
		return &object{typ: types.NewObjectType(linkType), get: func(way string) (any, error) {
			for _, report := range result.GetLinks() {
				if report.GetName() == link && report.GetDirection() == ways()[way] && report.GetPath() == "" {
					return wayObject(fmt.Sprintf("link[%q].%s", link, way), report), nil
				}
			}
			return nil, fmt.Errorf("the trial has no report of the link %s %s", link, way)
		}}, nil
	}}
}

// wayObject is one direction. What the engine did not count or time cannot be compared.
func wayObject(path string, report *tcplabv1.LinkReport) *object {
	return &object{typ: types.NewObjectType(wayType), get: func(name string) (any, error) {
		switch {
		case name == "lateness" && report.GetLateness().GetSummary() == nil:
			return nil, fmt.Errorf("%s.lateness was not measured: the engine cannot know it", path)
		case name == "lateness":
			return messageObject(path+".lateness", report.GetLateness().GetSummary().ProtoReflect()), nil
		case name == "queue" && report.GetQueue() == nil:
			return nil, fmt.Errorf("%s.queue was not looked at: give the experiment `observe: {queues: true}`", path)
		case name == "queue":
			return messageObject(path+".queue", report.GetQueue().ProtoReflect()), nil
		case report.GetCounters() == nil:
			return nil, fmt.Errorf("%s.%s was not counted", path, name)
		case name == "peak_queue" && report.GetCounters().GetPeakQueue() == 0 && report.GetEngine() == tcplabv1.Engine_ENGINE_NETEM:
			return nil, fmt.Errorf("%s.peak_queue was not measured: the engine cannot know it", path)
		}
		return messageObject(path, report.GetCounters().ProtoReflect()).get(name)
	}}
}
