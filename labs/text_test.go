package labs

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func parseText(t *testing.T, text string) *tcplabv1.Lab {
	t.Helper()
	lab := new(tcplabv1.Lab)
	if err := prototext.Unmarshal([]byte(text), lab); err != nil {
		t.Fatal(err)
	}
	return lab
}

// stairs is a mapping in a mapping in a mapping, by indentation.
func stairs(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// lines repeats a line with a number in it.
func lines(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// multiply is a chain of parameters of which each is ten times the one before.
func multiply() string {
	var b strings.Builder
	for i := 1; i <= 9; i++ {
		fmt.Fprintf(&b, "  z%d: %s\n", i, strings.Repeat(fmt.Sprintf("${z%d}", i-1), 10))
	}
	return b.String()
}
