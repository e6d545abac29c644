package guard

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const namespace = 4711

// leave writes a journal as an agent that dies does: with its end cut off.
func leave(t *testing.T, dir, name string, changes ...Change) string {
	t.Helper()
	j, err := OpenJournal(JournalOptions{Dir: dir, Name: name, About: "a test", Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if err := j.Write(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Leave(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name+journalSuffix)
}

// rollback is what is undone, in its order, and what is said.
func rollback(t *testing.T, dir string, fail error) (undone []Change, said string, err error) {
	t.Helper()
	var log bytes.Buffer
	err = Rollback(t.Context(), RollbackOptions{
		Dir: dir, Namespace: namespace, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Undo: func(changes []Change) error {
			undone = append(undone, changes...)
			return fail
		},
	})
	return undone, log.String(), err
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

var (
	first  = Change{Kind: "clsact", Interface: "eth1", Index: 7}
	second = Change{Kind: "filter", Interface: "eth1", Index: 7, Parent: 1, Priority: 99, Handle: 1, Program: 5, Name: "n"}
)

func TestRollback(t *testing.T) {
	dir := t.TempDir()
	path := leave(t, dir, "a", first, second)
	undone, _, err := rollback(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Change{second, first}, undone); diff != "" {
		t.Errorf("undone (-want +got):\n%s", diff)
	}
	if exists(t, path) {
		t.Error("the journal is still there")
	}
	if undone, _, err := rollback(t, dir, nil); err != nil || len(undone) > 0 {
		t.Errorf("a second rollback undoes %v: %v", undone, err)
	}
	if _, _, err := rollback(t, filepath.Join(dir, "none"), nil); err != nil {
		t.Errorf("without a folder: %v", err)
	}
}

// What could not be undone is tried again by the next.
func TestRollbackFails(t *testing.T) {
	dir := t.TempDir()
	path := leave(t, dir, "a", first)
	if _, _, err := rollback(t, dir, errors.New("no")); err == nil || !exists(t, path) {
		t.Errorf("Rollback: %v; the journal is there: %v", err, exists(t, path))
	}
	if undone, _, err := rollback(t, dir, nil); err != nil || len(undone) != 1 {
		t.Errorf("the next undoes %v: %v", undone, err)
	}
}

func TestRollbackLeavesAlone(t *testing.T) {
	edit := func(old, with string) func(string) string {
		return func(content string) string { return strings.ReplaceAll(content, old, with) }
	}
	for name, test := range map[string]struct {
		edit   func(content string) string
		undone int
		left   bool // the journal
		said   string
	}{
		"as it was":             {edit("", ""), 2, false, "undoing"},
		"cut in the last line":  {func(c string) string { return c[:len(c)-3] }, 1, false, "undoing"},
		"cut in the first line": {func(c string) string { return c[:20] }, 0, false, ""},
		"empty":                 {func(string) string { return "" }, 0, false, ""},
		"another boot":          {edit(`"Boot":"`, `"Boot":"x`), 0, false, "started anew"},
		"another namespace":     {edit("4711", "4712"), 0, true, "another network namespace"},
		"a later format":        {edit(`"Format":1`, `"Format":2`), 0, true, "cannot be read"},
		"an unknown key":        {edit(`"Index":7`, `"Index":7,"More":1`), 0, true, "cannot be read"},
		"damaged":               {edit(`"Kind"`, `Kind`), 0, true, "cannot be read"},
		"too long":              {func(c string) string { return c + strings.Repeat("\n", maxJournal) }, 0, true, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := leave(t, dir, "a", first, second)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(test.edit(string(content))), 0o600); err != nil {
				t.Fatal(err)
			}
			undone, said, err := rollback(t, dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(undone) != test.undone || exists(t, path) != test.left || !strings.Contains(said, test.said) {
				t.Errorf("undone %v, journal left %v, said %q", undone, exists(t, path), said)
			}
		})
	}
}

// The journal of a process that lives is its own.
func TestRollbackOfTheLiving(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(JournalOptions{Dir: dir, Name: "a", Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Write(first); err != nil {
		t.Fatal(err)
	}
	if undone, _, err := rollback(t, dir, nil); err != nil || len(undone) > 0 {
		t.Errorf("undone: %v, %v", undone, err)
	}
	if _, err := OpenJournal(JournalOptions{Dir: dir, Name: "a"}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second one of the name: %v", err)
	}
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Error(err)
	}
	if err := j.Write(first); err == nil {
		t.Error("a closed journal takes a change")
	}
	if exists(t, filepath.Join(dir, "a"+journalSuffix)) {
		t.Error("a journal that ended well is left")
	}
}

// A watchdog waits for the journals of the process that it watched.
func TestRollbackWaits(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(JournalOptions{Dir: dir, Name: "a", Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Write(first); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	done := make(chan []Change, 1)
	go func() {
		var undone []Change
		close(asked)
		err := Rollback(context.WithoutCancel(t.Context()), RollbackOptions{
			Dir: dir, Namespace: namespace, Process: os.Getpid(),
			Undo: func(c []Change) error { undone = c; return nil },
		})
		if err != nil {
			t.Error(err)
		}
		done <- undone
	}()
	<-asked
	if err := j.Leave(); err != nil {
		t.Fatal(err)
	}
	if undone := <-done; len(undone) != 1 {
		t.Errorf("undone: %v", undone)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"Format":1,"Boot":"b","Namespace":1,"Process":2,"About":""}` + "\n" + `{"Kind":"filter","Interface":"e","Index":1}` + "\n"))
	f.Add([]byte("{}\n{}\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		h, changes, err := readJournal(bytes.NewReader(content))
		if err == nil && len(changes) > 0 && h.Format != journalFormat {
			t.Errorf("changes of a journal of format %d", h.Format)
		}
	})
}
