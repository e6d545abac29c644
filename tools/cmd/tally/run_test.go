package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTally runs real tests and reads their events.
func TestTally(t *testing.T) {
	for name, test := range map[string]struct {
		source string
		ok     bool
		want   []string
	}{
		"all pass, parents are not counted": {
			source: `func TestA(t *testing.T) {}; func TestB(t *testing.T) { for _, n := range []string{"x", "y"} { t.Run(n, func(*testing.T) {}) } }`,
			ok:     true,
			want:   []string{"ok   probe: 3 passed, 0 failed", "\n3 passed, 0 failed\n"},
		},
		"a failure shows its output": {
			source: `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Error("the reason") }`,
			want:   []string{"the reason", "FAIL probe: 1 passed, 1 failed", "\n1 passed, 1 failed\n"},
		},
		"a skip names its reason": {
			source: `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Skip("needs netem: none here") }`,
			ok:     true,
			want:   []string{"skipped 1: needs netem: none here\n1 passed, 0 failed, 1 skipped\n"},
		},
		"a panic": {
			source: `func TestA(t *testing.T) { panic("the end") }`,
			want:   []string{"the end", "0 passed, 1 failed"},
		},
		"what does not build": {
			source: `func TestA(t *testing.T) { nonesuch() }`,
			want:   []string{"undefined: nonesuch", "FAIL (build) probe", "0 passed, 1 failed"},
		},
		"no test at all": {want: []string{"0 passed, 0 failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			source := "package probe\nimport \"testing\"\nvar _ testing.T\n" + test.source
			for file, text := range map[string]string{"go.mod": "module probe\n", "a_test.go": source} {
				if err := os.WriteFile(filepath.Join(folder, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			command := exec.CommandContext(t.Context(), "go", "test", "-json", ".")
			command.Dir = folder
			events, _ := command.Output() // its status is what the events tell
			var out bytes.Buffer
			ok, err := tally(bytes.NewReader(events), &out)
			if err != nil || ok != test.ok {
				t.Errorf("all well: %t (%v), want %t", ok, err, test.ok)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
		})
	}
}
