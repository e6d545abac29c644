package store_test

import (
	"testing"

	"github.com/tcplab/tcplab/controller/store"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// BenchmarkCommit is what each step of a trial waits for the disk.
func BenchmarkCommit(b *testing.B) {
	s, err := store.Open(b.Context(), b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	run, _, err := s.CreateRun(b.Context(), &tcplabv1.Run{Lab: "nagle"}, nil, store.Request{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.Commit(b.Context(), run.GetId(), store.Change{Events: []*tcplabv1.RunEvent{{}}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is what every start of tcplab waits for its state.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s, err := store.Open(b.Context(), dir, store.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
