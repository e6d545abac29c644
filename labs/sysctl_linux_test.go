package labs

import (
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

// A new namespace of this kernel has no setting to write that the list lacks, and
// what it does not have there is missing from the host, too: it is not the
// whole host's.
func TestSysctlsAreThoseOfANamespace(t *testing.T) {
	need.NetNS(t)
	ns, err := netns.New("test")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var own map[string]bool
	if err := ns.Do(func() (err error) { own, err = writable(); return err }); err != nil {
		t.Fatal(err)
	}
	host, err := writable()
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, name := range namespaced() {
		listed[name] = true
		if host[name] && !own[name] {
			t.Errorf("%s is the whole host's", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if !listed[name] && !strings.Contains(name, ".nf_log.") && !strings.HasPrefix(name, "net.bridge.") {
			t.Errorf("%s is not in the list", name)
		}
	}
	if len(own) < 100 || len(listed) < 100 {
		t.Errorf("only %d settings are there, %d listed", len(own), len(listed))
	}
}

// writable are the settings that this thread's namespace shows and may write.
func writable() (map[string]bool, error) {
	found := make(map[string]bool)
	err := filepath.WalkDir("/proc/sys/net", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o200 != 0 {
			_, general := perInterface(strings.ReplaceAll(strings.TrimPrefix(path, "/proc/sys/"), "/", "."))
			found[general] = true
		}
		return nil
	})
	return found, err
}
