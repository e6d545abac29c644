package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) apiCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "api",
		Short: "Print the descriptors of all services, for clients in any language",
		Long: `Api prints a google.protobuf.FileDescriptorSet of the contract with all that it imports, in
protobuf's encoding: what grpcurl takes with -protoset, and protoc and buf read.`,
		Example: "  tcplab api >tcplab.protoset    # then: grpcurl -protoset tcplab.protoset list",
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			set := descriptors()
			encode := proto.MarshalOptions{Deterministic: true}.Marshal
			if asJSON {
				encode = protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal
			}
			content, err := encode(set)
			if err != nil {
				return fmt.Errorf("encode the descriptors: %w", err)
			}
			_, err = a.Out.Write(content)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// descriptors are the files of all services with what they import, each behind its imports.
func descriptors() *descriptorpb.FileDescriptorSet {
	set := &descriptorpb.FileDescriptorSet{}
	seen := make(map[string]bool)
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	for _, file := range []protoreflect.FileDescriptor{
		tcplabv1.File_tcplab_v1_run_service_proto, tcplabv1.File_tcplab_v1_lab_service_proto, tcplabv1.File_tcplab_v1_host_service_proto,
		tcplabv1.File_tcplab_v1_access_service_proto, tcplabv1.File_tcplab_v1_agent_service_proto,
	} {
		add(file)
	}
	return set
}
