package labs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
)

// FuzzExpand holds that no file brings the parser down, that every error says
// where, and that what passes is valid, complete, and gets its addresses.
func FuzzExpand(f *testing.F) {
	f.Add(Reference().Content, "rtt", "10ms")
	f.Add(Starter("mine"), "rtt", "${rtt}")
	f.Add([]byte("name: ${a}\nparams: {a: '$${', b: \"${a}\"}"), "a", "'x'")
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content, "rtt", "10Mbit")
	}
	f.Fuzz(func(t *testing.T, content []byte, name, value string) {
		if len(content) > 4096 {
			return // size is TestHostileFiles' matter
		}
		file, err := Parse(Source{Name: "lab.yaml", Content: content})
		if err != nil {
			mustBeProblems(t, err)
			return
		}
		if countPoints(file.params) > 100 {
			return
		}
		for _, overrides := range [][]Override{nil, {{name, []string{value}}}} {
			labs, err := file.Expand(overrides)
			if err != nil {
				mustBeProblems(t, err)
				continue
			}
			for _, lab := range labs {
				if err := Assign(lab, nil); err != nil {
					continue // a subnet that the lab gave is full
				}
				if err := Validate(lab); err != nil {
					t.Fatalf("Assign made an invalid lab: %v", err)
				}
				if _, err := proto.Marshal(lab); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func mustBeProblems(t *testing.T, err error) {
	t.Helper()
	var problems Problems
	if !errors.As(err, &problems) || len(problems) == 0 {
		t.Fatalf("the error is a %T without a place: %v", err, err)
	}
	for _, p := range problems {
		if p.File == "" || p.Message == "" || p.File != overrideFile && (p.Line < 1 || p.Column < 1) {
			t.Fatalf("%+v says not where or what", p)
		}
	}
}
