package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sources is where Debian's packages linux-source-VERSION put their archives.
const sources = "/usr/src"

// packageName is what such a package is called.
var packageName = regexp.MustCompile(`^linux-source-([0-9]+(\.[0-9]+)+)$`)

// source is where a kernel's source is.
type source struct {
	name    string // the package or the path, as people write it
	archive string // a tar archive; empty: tree
	tree    string // a folder with the source
	version string // of the package; empty: that which the source itself says
	missing bool   // the package is not installed
}

// findSource finds the source that is asked for: a package, an archive or a tree; empty: the newest
// package that this machine has or could install.
func findSource(ctx context.Context, asked string) (source, error) {
	switch {
	case packageName.MatchString(asked):
		return packaged(ctx, asked), nil
	case asked != "":
		path, err := filepath.Abs(asked)
		if err != nil {
			return source{}, err
		}
		info, err := os.Stat(path)
		if err != nil {
			return source{}, fmt.Errorf("find the kernel's source (a package linux-source-VERSION, an archive or a folder): %w", err)
		}
		if !info.IsDir() {
			return source{name: path, archive: path}, nil
		}
		if _, err := os.Stat(filepath.Join(path, "arch/um/Kconfig")); err != nil {
			return source{}, fmt.Errorf("%s is no source of a kernel: %w", path, err)
		}
		return source{name: path, tree: path}, nil
	}
	names := append(installedPackages(), offeredPackages(ctx)...)
	if len(names) == 0 {
		return source{name: "linux-source-6.12", missing: true}, nil
	}
	return packaged(ctx, slices.MaxFunc(names, compareVersions)), nil
}

// packaged is the source in a package's archive.
func packaged(ctx context.Context, name string) source {
	s := source{name: name, missing: true}
	for _, ending := range []string{".tar.xz", ".tar.bz2", ".tar.gz"} {
		archive := filepath.Join(sources, name+ending)
		if _, err := os.Stat(archive); err == nil {
			s.archive, s.missing = archive, false
			break
		}
	}
	if !s.missing {
		if version, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", name).Output(); err == nil {
			s.version = strings.TrimSpace(string(version))
		}
	}
	return s
}

// installedPackages are those whose archives are here.
func installedPackages() []string {
	entries, err := os.ReadDir(sources)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var names []string
	for _, entry := range entries {
		if name, _, _ := strings.Cut(entry.Name(), ".tar."); packageName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// offeredPackages are those that apt knows.
func offeredPackages(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-cache", "search", "--names-only", "^linux-source-[0-9.]+$").Output()
	if err != nil {
		return nil
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if name, _, _ := strings.Cut(line, " "); packageName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// compareVersions orders texts by the numbers in them.
func compareVersions(a, b string) int { return slices.Compare(numbers(a), numbers(b)) }

func numbers(text string) []uint64 {
	var all []uint64
	for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return r < '0' || r > '9' }) {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			continue // longer than any version
		}
		all = append(all, n)
	}
	return all
}
