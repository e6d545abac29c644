package labs

import (
	"bytes"
	_ "embed" // for the two files below
	"slices"
)

//go:embed starter.yaml
var starter []byte

//go:embed reference.yaml
var reference []byte

// Starter is a small commented lab file of the given name to start from. It is
// valid where the name is one: 1 to 40 of a-z, 0-9 and hyphen, starting with a
// letter.
func Starter(name string) []byte {
	return bytes.ReplaceAll(starter, []byte("NAME"), []byte(name))
}

// Reference is a lab file that explains every key.
func Reference() []byte { return slices.Clone(reference) }
