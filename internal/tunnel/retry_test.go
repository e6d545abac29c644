package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An agent that cannot reach its controller waits a time drawn evenly up to a bound, which doubles to RetryMost: a fleet whose
// controller was away comes back spread out, and none of it late.
func TestFullJitter(t *testing.T) {
	const tries = 400
	var dialed []time.Time // one a try
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		a := &Agent{Controller: "192.0.2.1:7443", Log: slog.New(slog.DiscardHandler), Dial: func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			// Both connections of a session are dialed at the same time.
			if now := time.Now(); len(dialed) == 0 || now != dialed[len(dialed)-1] {
				dialed = append(dialed, now)
			}
			if len(dialed) == tries {
				cancel()
			}
			return nil, errors.New("it is away")
		}}
		a.Run(ctx, NewListener())
	})
	var sum time.Duration
	early, late, steadily := 0, 0, 0
	for i := 1; i < len(dialed); i++ {
		wait, bound := dialed[i].Sub(dialed[i-1]), RetryMost
		if i-1 < 4 { // 1, 2, 4 and 8 s
			bound = retryFirst << (i - 1)
		}
		if wait > bound {
			t.Errorf("after %d failures it waited %v, more than %v", i, wait, bound)
		}
		if bound < RetryMost {
			continue
		}
		steadily++
		sum += wait
		if wait < RetryMost/4 {
			early++
		}
		if wait > RetryMost*3/4 {
			late++
		}
	}
	// Of 390 even draws a quarter are in each quarter, ± 5 standard deviations of 8.6; their mean is half, ± 5 of 0.22 s.
	if mean := sum / time.Duration(steadily); mean < RetryMost/2-1100*time.Millisecond || mean > RetryMost/2+1100*time.Millisecond {
		t.Errorf("it waits %v in the mean, and not half of %v", mean, RetryMost)
	}
	if quarter := steadily / 4; early < quarter-43 || early > quarter+43 || late < quarter-43 || late > quarter+43 {
		t.Errorf("of %d waits %d were in the first quarter and %d in the last", steadily, early, late)
	}
}
