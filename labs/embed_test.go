package labs

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestEmbeddedLabs(t *testing.T) {
	infos := List()
	if len(infos) < 3 {
		t.Fatalf("only %d labs: %v", len(infos), infos)
	}
	for _, info := range infos {
		t.Run(info.Name, func(t *testing.T) {
			src, err := Load(info.Name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := Parse(src)
			if err != nil {
				t.Fatal(err)
			}
			if f.Name() != info.Name || f.Title() == "" || f.Title() != info.Title {
				t.Errorf("the file says %q, %q; List says %+v", f.Name(), f.Title(), info)
			}
			labs, err := f.Expand(nil)
			if err != nil {
				t.Fatalf("Expand:\n%v", err)
			}
			for _, lab := range labs {
				if err := Assign(lab, nil); err != nil {
					t.Fatal(err)
				}
				if err := Validate(lab); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestLoadBringsFiles(t *testing.T) {
	src, err := loadFrom(fstest.MapFS{
		"cell/lab.yaml": {Data: []byte("name: cell")}, "cell/cell.trace": {Data: []byte("1\n")}, "other/lab.yaml": {},
	}, "cell")
	want := Source{Name: "cell.yaml", Content: []byte("name: cell"), Attachments: map[string][]byte{"cell.trace": []byte("1\n")}}
	if diff := cmp.Diff(want, src); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestLoadUnknown(t *testing.T) {
	for name, want := range map[string]string{
		"nagel":     `unknown lab "nagel" (did you mean "nagle"?)`,
		"zzz":       `unknown lab "zzz" (there are `,
		"../embed":  `unknown lab "../embed"`,
		"":          `unknown lab ""`,
		"handshke/": `(did you mean "handshake"?)`,
	} {
		if _, err := Load(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load(%q): %v, want %s", name, err, want)
		}
	}
}
