package guard

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ended is a lease's end, and when it came after the start.
type ended struct {
	ID string
	At time.Duration
}

func TestLeases(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*Leases) // in the clock of the test
		want []ended
	}{
		"none": {func(*Leases) {}, nil},
		"in the order of their ends": {
			func(l *Leases) {
				l.Grant("slow", 3*time.Second)
				l.Grant("fast", time.Second)
			},
			[]ended{{"fast", time.Second}, {"slow", 3 * time.Second}},
		},
		"renewed": {
			func(l *Leases) {
				l.Grant("a", 2*time.Second)
				<-time.After(time.Second)
				l.Renew("a")
			},
			[]ended{{"a", 3 * time.Second}},
		},
		"dropped": {
			func(l *Leases) {
				l.Grant("a", time.Second)
				l.Grant("b", 2*time.Second)
				l.Drop("a")
				l.Drop("never there")
			},
			[]ended{{"b", 2 * time.Second}},
		},
		"granted anew, shorter": {
			func(l *Leases) {
				l.Grant("a", time.Hour)
				<-time.After(time.Second)
				l.Grant("a", time.Second)
			},
			[]ended{{"a", 2 * time.Second}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				leases, start := NewLeases(), time.Now()
				var got []ended
				done := make(chan struct{})
				go func() {
					defer close(done)
					leases.Run(ctx, func(id string) { got = append(got, ended{id, time.Since(start)}) })
				}()
				test.do(leases)
				<-time.After(24 * time.Hour)
				cancel()
				<-done
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("leases ended (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestRenewAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		leases := NewLeases()
		done := make(chan struct{})
		go func() {
			defer close(done)
			leases.Run(ctx, func(string) {})
		}()
		leases.Grant("a", time.Second)
		if !leases.Renew("a") {
			t.Error("a lease that runs is not renewed")
		}
		<-time.After(2 * time.Second)
		if leases.Renew("a") {
			t.Error("a lease is renewed after its end")
		}
		cancel()
		<-done
	})
}
