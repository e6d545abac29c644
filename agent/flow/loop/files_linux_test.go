package loop

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestRoom(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
	low := unix.Rlimit{Cur: min(5000, before.Max), Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	after := func(descriptors int) unix.Rlimit {
		t.Helper()
		if err := Room(descriptors); err != nil {
			t.Fatal(err)
		}
		var now unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
			t.Fatal(err)
		}
		return now
	}
	if now := after(100); now != low && low.Cur == 5000 {
		t.Errorf("there was room, and the limit is %v", now)
	}
	if now := after(20_000); now.Cur < 20_000 && now.Cur < before.Max {
		t.Errorf("the limit is %v of %v", now, before)
	}
}
