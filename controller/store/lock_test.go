package store_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
)

func TestSecondProcessWaits(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	run := setState(t, first, create(t, first, "nagle", nil), running)

	_, err := store.Open(t.Context(), dir, store.Options{})
	if !errors.Is(err, store.ErrLocked) {
		t.Fatalf("error %v, want ErrLocked", err)
	}
	wantError(t, err, codes.Unavailable, rpcerr.Busy, run.GetId())

	_, err = store.Open(t.Context(), dir, store.Options{Wait: time.Millisecond})
	if !errors.Is(err, store.ErrLocked) {
		t.Errorf("after waiting: error %v, want ErrLocked", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	_, err = store.Open(ctx, dir, store.Options{Wait: -1, Waiting: func(store.Holder) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("given up: error %v", err)
	}

	var holder store.Holder
	second, err := store.Open(t.Context(), dir, store.Options{Wait: -1, Waiting: func(h store.Holder) {
		holder = h
		setState(t, first, run, succeeded)
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if want := (store.Holder{PID: os.Getpid(), RunID: run.GetId()}); holder != want {
		t.Errorf("waited for %+v, want %+v", holder, want)
	}
}
