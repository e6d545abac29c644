package labs

import (
	"bytes"
	_ "embed" // for the files below
	"slices"
)

//go:embed starter.yaml
var starter []byte

var (
	//go:embed reference.yaml
	reference []byte
	//go:embed reference.trace
	referenceTrace []byte
	//go:embed reference.csv
	referenceTable []byte
	//go:embed reference.dist
	referenceQuantiles []byte
)

// Starter is a small commented lab file of the given name to start from. It is
// valid where the name is one: 1 to 40 of a-z, 0-9 and hyphen, starting with a
// letter.
func Starter(name string) []byte {
	return bytes.ReplaceAll(starter, []byte("NAME"), []byte(name))
}

// Reference is a lab file that explains every key, with the files that it names.
func Reference() Source {
	return Source{Name: "reference.yaml", Content: slices.Clone(reference), Attachments: map[string][]byte{
		"reference.trace": slices.Clone(referenceTrace), "reference.csv": slices.Clone(referenceTable), "reference.dist": slices.Clone(referenceQuantiles),
	}}
}
