package netns_test

import (
	"net"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

func TestNamespacesAreApart(t *testing.T) {
	need.NetNS(t)
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range []string{"a", "b"} {
		h := must(t, name)
		if err := h.Do(func() error {
			inside, err := os.Readlink("/proc/thread-self/ns/net")
			names = append(names, inside)
			if err != nil {
				return err
			}
			// The loopback interface is up, and the only one.
			all, err := net.Interfaces()
			if err == nil && (len(all) != 1 || all[0].Flags&net.FlagUp == 0) {
				t.Errorf("%s holds %v", name, all)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	names = append(names, host)
	if err := must(t, "c").Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do took a function that never returned for one that did well")
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 3 {
		t.Errorf("not three namespaces: %v", names)
	}
	// However often threads go there and back, the process stays.
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != host {
		t.Errorf("the process is in %s (%v), and was in %s", after, err, host)
	}
}

func must(t *testing.T, name string) *netns.Handle {
	t.Helper()
	h, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}
