package labs

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestProblems reads each testdata/problems/*.yaml and compares what is wrong
// with it to the .golden beside it; a folder of the same name holds the files that it
// names. `go test -update` writes them anew; read
// the difference before you keep it.
func TestProblems(t *testing.T) {
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("only %d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			src := Source{Name: "lab.yaml", Content: content, Attachments: readFolder(t, strings.TrimSuffix(file, ".yaml"))}
			got := problemsOf(t, src) + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// readFolder is what stands in a folder, which need not be there: the files that a
// lab names.
func readFolder(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = content
	}
	return files
}

var update = flag.Bool("update", false, "write the golden files anew")

func problemsOf(t *testing.T, src Source) string {
	t.Helper()
	f, err := Parse(src)
	if err == nil {
		_, err = f.Expand(nil)
	}
	if err == nil {
		t.Fatal("no problem was found")
	}
	if _, ok := err.(Problems); !ok { //nolint:errorlint // the contract is that it is Problems itself
		t.Fatalf("the error is a %T, not Problems: %v", err, err)
	}
	return err.Error()
}

// TestHostileFiles are too large for testdata. Each must be refused, and soon:
// the bound is far above what a busy machine takes, and far below what
// quadratic work would.
func TestHostileFiles(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"empty", "", "lab.yaml:1:1: the file is empty (`tcplab lab new` writes one to start from)"},
		{"comments", "# nothing\n", "lab.yaml:1:1: the file is empty (`tcplab lab new` writes one to start from)"},
		{"too large", strings.Repeat("#", MaxFileSize+1), "lab.yaml:1:1: the file has 1048577 bytes, more than 1 MiB (large tables belong in attachments)"},
		{"not UTF-8", "name: a\ntitle: \xff", "lab.yaml:2:8: the file is not UTF-8 here"},
		{"not text", "name: a\ntitle: \x00", "lab.yaml:2:8: the file holds a character that is not text"},
		{"forged mark", "name: \uE000", "lab.yaml:1:7: the file holds a character that is not text"},
		{"deep lists", strings.Repeat("[", MaxFileSize), "lab.yaml:1:21: values nest more than 20 deep"},
		{"deep mappings", strings.Repeat("{a: ", MaxFileSize/4), "lab.yaml:1:81: values nest more than 20 deep"},
		{"deep items", strings.Repeat("- ", MaxFileSize/2), "lab.yaml:1:41: values nest more than 20 deep"},
		{"deep keys", strings.Repeat("? ", MaxFileSize/2), "lab.yaml:1:41: values nest more than 20 deep"},
		{"deep tags", strings.Repeat("!!seq ", MaxFileSize/6), ""},
		{"deep indentation", stairs(600), "lab.yaml:21:22: values nest more than 20 deep"},
		{"many keys", "params:\n" + lines("  k%d: 1\n", 60000), "lab.yaml:5002:3: a mapping has more than 5000 keys"},
		{"many colons", strings.Repeat("a:", MaxFileSize/2), ""},
		{"many quotes", "name: " + strings.Repeat(`"`, MaxFileSize-10), ""},
		{"many braces", strings.Repeat("${", MaxFileSize/2), ""},
		{"references that multiply", "params:\n  z0: aaaaaaaaaa\n" + multiply() + "name: ${z9}\nnodes: [a]\nexperiments: []\n", "lab.yaml:6:7: with its parameters this becomes longer than 65536 bytes\nlab.yaml:10:7: with its parameters this becomes longer than 65536 bytes"},
		{"many documents", strings.Repeat("---\na\n", 100000), "lab.yaml:3:1: a lab file is one YAML document, and here a second one starts (put the second lab into a file of its own)"},
		{"many ends", strings.Repeat("...\n", 200000), ""},
		{"many mappings", strings.Repeat("a:\n"+lines("  k%d: 1\n", 4900), 4), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			got := problemsOf(t, Source{Name: "lab.yaml", Content: []byte(tt.content)})
			if took := time.Since(start); took > time.Minute {
				t.Errorf("it took %v", took)
			} else {
				t.Logf("%v", took)
			}
			if tt.want == "" {
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
