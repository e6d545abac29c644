package spool

import (
	"testing"
)

// A scratch file has no name, and takes what is written to it.
func TestScratch(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	trial, err := s.Begin("a")
	if err != nil {
		t.Fatal(err)
	}
	file, err := trial.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("scratch"); err != nil {
		t.Fatal(err)
	}
	read := make([]byte, 3)
	if _, err := file.ReadAt(read, 4); err != nil || string(read) != "tch" {
		t.Errorf("read %q, %v", read, err)
	}
	if left := names(t, trial.dir); len(left) != 0 {
		t.Errorf("the folder has %q", left)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}
