package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// put makes what a build leaves.
func put(t *testing.T, dir, name, release, hash string, built time.Time) {
	t.Helper()
	folder := filepath.Join(dir, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	about, err := json.Marshal(Kernel{Release: release, Source: "a source", ConfigHash: hash, HZ: HZ, Built: built})
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{aboutName: about, programName: []byte("a program")} {
		if err := os.WriteFile(filepath.Join(folder, file), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFindTakesTheNewestOfThisConfiguration(t *testing.T) {
	own, machine := t.TempDir(), t.TempDir()
	if _, err := Find(own, machine, filepath.Join(own, "none")); !errors.Is(err, ErrNone) {
		t.Errorf("the error without a kernel is %v", err)
	}
	now := time.Unix(1e9, 0).UTC()
	put(t, own, "a", "6.99.1-tcplab", "another0hash", now)
	if _, err := Find(own, machine); !errors.Is(err, ErrNone) {
		t.Errorf("the error with a kernel of another configuration is %v", err)
	}
	put(t, own, "b", "6.9.200-tcplab", Hash(), now.Add(time.Hour))
	put(t, machine, "c", "6.12.3-tcplab", Hash(), now)
	if err := os.Mkdir(filepath.Join(own, workName), 0o755); err != nil {
		t.Fatal(err)
	}
	found, err := Find(own, machine)
	if err != nil || found.Name != "c" || found.Path != filepath.Join(machine, "c", programName) || found.Size == 0 || !found.Current {
		t.Errorf("found %+v (%v), want c", found, err)
	}
	all, err := List(own, machine)
	var names []string
	for _, k := range all {
		names = append(names, k.Name)
	}
	if want := []string{"c", "b", "a"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("listed %v (%v), want %v", names, err, want)
	}
	if err := Remove(found); err != nil {
		t.Fatal(err)
	}
	if found, err = Find(own, machine); err != nil || found.Name != "b" {
		t.Errorf("found %+v (%v) after that, want b", found, err)
	}
}

func TestHashIsOfConfigurationAndPatches(t *testing.T) {
	if h := Hash(); len(h) != 12 || h != Hash() {
		t.Errorf("the hash is %q, then %q", h, Hash())
	}
}

// What issue and design ask of a guest's kernel is in its configuration, each once.
func TestConfigurationHasWhatLabsNeed(t *testing.T) {
	all := options()
	for name := range strings.FieldsSeq(`UML_TIME_TRAVEL_SUPPORT HOSTFS NET_SCH_NETEM NET_SCH_HTB NET_SCH_TBF NET_SCH_FQ NET_SCH_FQ_CODEL NET_SCH_CAKE
		NET_SCH_RED NET_SCH_PIE NET_SCH_CODEL NET_CLS_U32 NET_CLS_FLOWER NET_CLS_MATCHALL NET_ACT_MIRRED NET_ACT_GACT NET_CLS_BPF BPF_SYSCALL VETH
		BRIDGE VXLAN IFB TUN INET_DIAG INET_DIAG_DESTROY PACKET IPV6 TCP_CONG_CUBIC TCP_CONG_BBR TCP_CONG_VEGAS TCP_CONG_DCTCP`) {
		if !slices.Contains(all, "CONFIG_"+name+"=y") {
			t.Errorf("CONFIG_%s is not set", name)
		}
	}
	for i, option := range all {
		if name, _, ok := strings.Cut(option, "="); !ok || slices.ContainsFunc(all[:i], func(o string) bool { return strings.HasPrefix(o, name+"=") }) {
			t.Errorf("%q is no setting, or the second of its name", option)
		}
	}
	made := strings.Join(all[1:], "\n") + "\n"
	if got, want := refused(made), all[:1]; !slices.Equal(got, want) {
		t.Errorf("refused are %v, want %v", got, want)
	}
}

func TestPatchesChangeWhatTheyKnow(t *testing.T) {
	for _, p := range patches() {
		changed, err := p.change("before\n" + p.old + "after\n")
		if err != nil || changed != "before\n"+p.new+"after\n" {
			t.Errorf("%s: %q (%v)", p.file, changed, err)
		}
		for _, content := range []string{"", p.old + p.old} {
			if _, err := p.change(content); err == nil || !strings.Contains(err.Error(), p.file) {
				t.Errorf("%s: the error of a source that is not known is %v", p.file, err)
			}
		}
	}
}

func TestSource(t *testing.T) {
	tree := t.TempDir()
	if _, err := findSource(t.Context(), tree); err == nil {
		t.Error("a folder without a kernel is a source")
	}
	if err := os.MkdirAll(filepath.Join(tree, "arch/um"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "arch/um/Kconfig"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := findSource(t.Context(), tree); err != nil || s.tree != tree {
		t.Errorf("the source in a folder is %+v (%v)", s, err)
	}
	s, err := findSource(t.Context(), "linux-source-0.1")
	if err != nil || !s.missing {
		t.Errorf("a package that there is not: %+v (%v)", s, err)
	}
	lacks := &MissingError{Requirements: missing(s)}
	if last := lacks.Requirements[len(lacks.Requirements)-1]; last.Package != "linux-source-0.1" {
		t.Errorf("what is missing last is %+v", last)
	}
	if !strings.HasSuffix(lacks.Command(), "linux-source-0.1") || !strings.Contains(lacks.Error(), "linux-source-0.1: the kernel's source") {
		t.Errorf("%v\n%s", lacks, lacks.Command())
	}
	for _, pair := range [][2]string{{"linux-source-6.1", "linux-source-6.12"}, {"6.9.12", "6.10.1"}, {"6.12", "6.12.1"}} {
		if compareVersions(pair[0], pair[1]) >= 0 || compareVersions(pair[1], pair[0]) <= 0 {
			t.Errorf("%s does not come before %s", pair[0], pair[1])
		}
	}
}

// A source that is not as it should be is a step that failed; its log stays, and nothing else does.
func TestBuildThatFails(t *testing.T) {
	tree, dir := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(tree, "arch/um"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "arch/um/Kconfig"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "Makefile"), []byte("mrproper:\n\techo no such thing; exit 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err := Build(t.Context(), dir, Options{Source: tree})
	if lacks, ok := errors.AsType[*MissingError](err); ok {
		t.Skipf("needs what builds a kernel: %v", lacks)
	}
	var fault *BuildError
	if !errors.As(err, &fault) || !strings.Contains(err.Error(), "no such thing") {
		t.Fatalf("the error is %v", err)
	}
	log, err := os.ReadFile(fault.Log)
	if err != nil || !strings.Contains(string(log), "no such thing") {
		t.Errorf("the log is %q (%v)", log, err)
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != logName && e.Name() != lockName {
			t.Errorf("%s is left (%v)", e.Name(), err)
		}
	}
}

// A build waits for another in the same folder, and no longer than its context.
func TestBuildWaitsForAnother(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Build(ctx, dir, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}
