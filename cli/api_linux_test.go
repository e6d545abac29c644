package cli

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// What `tcplab api` prints is whole: a client can build every service from it alone.
func TestAPI(t *testing.T) {
	stdout, _ := inProcess(t, exitOK, "api")
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal([]byte(stdout), set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"RunService", "LabService", "HostService", "AccessService", "AgentService"} {
		found, err := files.FindDescriptorByName(protoreflect.FullName("tcplab.v1." + name))
		if err != nil {
			t.Error(err)
		} else if found.(protoreflect.ServiceDescriptor).Methods().Len() == 0 {
			t.Errorf("%s has no methods", name)
		}
	}
}
