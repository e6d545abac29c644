package schedule

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tcplab/tcplab/agent/link"
)

// pass lets virtual time pass.
func pass(d time.Duration) { <-time.After(d) }

// record notes the changes that it is told to make, and when.
type record struct {
	mu    sync.Mutex
	begin time.Time
	made  []at
	takes time.Duration // each change
	fails map[time.Duration]error
}

func (r *record) change(m Moment) error {
	pass(r.takes)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made = append(r.made, at{time.Since(r.begin), m.To.Shape.Delay, m.At})
	return r.fails[m.At]
}

func (r *record) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.made)
}

func play(t *testing.T, r *record, d link.Direction) (*Playing, chan error) {
	t.Helper()
	failed := make(chan error, 1)
	r.begin = time.Now()
	p, err := Play(t.Context(), []Part{{Direction: d, Change: r.change}}, func(err error) { failed <- err })
	if err != nil {
		t.Fatal(err)
	}
	return p, failed
}

func stairs(times ...time.Duration) link.Direction {
	d := link.Direction{}
	for _, at := range times {
		d.Schedule.Steps = append(d.Schedule.Steps, link.Step{At: at, Shape: delayed(at + time.Second)})
	}
	return d
}

func TestStepsAreTakenAtTheirTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &record{}
		p, _ := play(t, r, stairs(0, 100*ms, 5*time.Second, time.Hour))
		if n := r.count(); n != 1 {
			t.Errorf("%d changes were made when Play returned, want that of time 0", n)
		}
		pass(time.Minute)
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		want := []at{{0, time.Second, 0}, {100 * ms, time.Second + 100*ms, 100 * ms}, {5 * time.Second, 6 * time.Second, 5 * time.Second}}
		if diff := cmp.Diff(want, r.made); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		pass(2 * time.Hour)
		if len(r.made) != 3 {
			t.Error("a step was taken after Stop")
		}
	})
}

// Where changes take longer than there is time between them, steps come late, in order, and none is left
// out; of a ramp those that were overtaken are.
func TestLateChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &record{takes: 25 * ms}
		p, _ := play(t, r, stairs(10*ms, 11*ms, 12*ms))
		pass(time.Second)
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if want := []at{{35 * ms, 1010 * ms, 10 * ms}, {60 * ms, 1011 * ms, 11 * ms}, {85 * ms, 1012 * ms, 12 * ms}}; !cmp.Equal(want, r.made) {
			t.Errorf("steps: %v", r.made)
		}

		r = &record{takes: 25 * ms}
		d := link.Direction{Schedule: link.Schedule{Steps: []link.Step{{Shape: delayed(100 * ms), Ramp: 100 * ms}}}}
		p, _ = play(t, r, d)
		pass(time.Second)
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if want := []at{{35 * ms, 10 * ms, 10 * ms}, {60 * ms, 30 * ms, 30 * ms}, {85 * ms, 60 * ms, 60 * ms}, {110 * ms, 80 * ms, 80 * ms}, {135 * ms, 100 * ms, 100 * ms}}; !cmp.Equal(want, r.made) {
			t.Errorf("ramp: %v", r.made)
		}
	})
}

func TestChangeThatFailsEndsAllParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("the kernel said no")
		bad, good := &record{fails: map[time.Duration]error{20 * ms: broken}}, &record{}
		failed := make(chan error, 2)
		p, err := Play(t.Context(), []Part{
			{Direction: stairs(10*ms, 20*ms, 30*ms), Change: bad.change},
			{Direction: stairs(15*ms, 40*ms), Change: good.change},
		}, func(err error) { failed <- err })
		if err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !errors.Is(err, broken) || !strings.Contains(err.Error(), "schedule at 20ms") {
			t.Errorf("failed was told %v", err)
		}
		pass(time.Second)
		if err := p.Stop(); !errors.Is(err, broken) {
			t.Errorf("Stop: %v", err)
		}
		if len(bad.made) != 2 || len(good.made) != 1 {
			t.Errorf("%d and %d changes, want 2 and 1: nothing after the failure", len(bad.made), len(good.made))
		}
	})
}

func TestFailureAtTheBeginning(t *testing.T) {
	broken := errors.New("the kernel said no")
	r := &record{fails: map[time.Duration]error{0: broken}}
	if _, err := Play(t.Context(), []Part{{Direction: stairs(0), Change: r.change}}, nil); !errors.Is(err, broken) {
		t.Errorf("Play: %v", err)
	}
}

func TestEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := &record{begin: time.Now()}
		p, err := Play(ctx, []Part{{Direction: stairs(time.Second), Change: r.change}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		pass(time.Minute)
		if err := p.Stop(); err != nil || len(r.made) != 0 {
			t.Errorf("Stop: %v, %d changes", err, len(r.made))
		}
	})
}

// Each playing starts anew.
func TestPlayedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs [2][]at
		d := stairs(0, 10*ms, 30*ms)
		for i := range runs {
			r := &record{}
			p, _ := play(t, r, d)
			pass(20 * ms)
			if err := p.Stop(); err != nil {
				t.Fatal(err)
			}
			runs[i] = r.made
		}
		if diff := cmp.Diff(runs[0], runs[1]); diff != "" || len(runs[0]) != 2 {
			t.Errorf("the first made %v, the second:\n%s", runs[0], diff)
		}
	})
}
