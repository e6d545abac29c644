// Command protodeps writes the .proto files that the contract imports and that
// are no part of protoc's own, from the descriptors inside the Go modules that
// carry their generated code. buf reads them as a second module, so that
// nothing is fetched from buf's registry, and what the contract is checked
// against is what it is compiled against.
//
// Usage: protodeps FOLDER. The folder is made if need be; nothing else in it is
// touched.
package main

import (
	"fmt"
	"os"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: protodeps FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "protodeps:", err)
		os.Exit(1)
	}
}

// write prints every imported file below the folder, at its import path.
func write(folder string) error {
	printer := protoprint.Printer{Compact: true}
	files := []protoreflect.FileDescriptor{validate.File_buf_validate_validate_proto}
	if err := printer.PrintProtosToFileSystem(files, folder); err != nil {
		return fmt.Errorf("print the imported protos into %s: %w", folder, err)
	}
	return nil
}
