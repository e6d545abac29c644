package labs

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// embedded holds the labs that tcplab brings along, one folder each. The first lab
// that names a file adds that file's pattern here.
//
//go:embed */lab.yaml
var embedded embed.FS

// Info names a lab that tcplab brings along.
type Info struct {
	Name  string // of its folder, and in the file
	Title string // what it shows, in one line
}

// List is the labs that tcplab brings along, by name.
func List() []Info {
	var infos []Info
	for _, name := range names() {
		src, err := Load(name)
		if err != nil {
			continue // cannot be: names are those of files
		}
		info := Info{Name: name}
		if f, err := Parse(src); err == nil { // a test holds that all parse
			info.Title = f.Title()
		}
		infos = append(infos, info)
	}
	return infos
}

// Load is the source of a lab that tcplab brings along, with the files that it names. The
// error of an unknown name offers the nearest, and says which there are.
func Load(name string) (Source, error) {
	if slices.Contains(names(), name) {
		return loadFrom(embedded, name)
	}
	hint := "there are " + strings.Join(names(), ", ")
	return Source{}, fmt.Errorf("unknown lab %q (%s)", name, cmp.Or(didYouMean(name, names()), hint))
}

// loadFrom reads a lab's folder: its file, and what stands beside it.
func loadFrom(fsys fs.FS, name string) (Source, error) {
	src := Source{Name: name + ".yaml", Attachments: make(map[string][]byte)}
	entries, err := fs.ReadDir(fsys, name)
	if err != nil {
		return Source{}, fmt.Errorf("read the lab %s: %w", name, err)
	}
	for _, e := range entries {
		content, err := fs.ReadFile(fsys, path.Join(name, e.Name()))
		switch {
		case err != nil:
			return Source{}, fmt.Errorf("read the lab %s: %w", name, err)
		case e.Name() == "lab.yaml":
			src.Content = content
		default:
			src.Attachments[e.Name()] = content
		}
	}
	return src, nil
}

func names() []string {
	files, err := fs.Glob(embedded, "*/lab.yaml")
	if err != nil {
		return nil // cannot be: the pattern is well formed
	}
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = path.Dir(f)
	}
	return out
}
