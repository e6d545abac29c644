package virtual

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// stillness is how much of the real time a guest's clock must go on by. The heaviest traffic, 10 Gbit/s, takes
// some 40 times as long as it lasts; a program that polls the clock lets it go on by
// 256 ns a reading (TIMER_MULTIPLIER, arch/um/kernel/time.c), a twentieth of the time that takes.
const stillness = 0.001

// asks is how often a guest is asked what it does, within Config.Spin.
const asks = 3

// watch sees to it, on the real clock, that a guest's goes on. It is under the guest's lock, but for
// run's own goroutine, which ends with the guest's context.
type watch struct {
	clock    time.Duration // the guest's, as last told
	arrived  time.Time     // when it was told
	answered int           // how often it has said what it does
	running  [][]string    // each time
	before   []time.Duration
	heard    []int
}

// see takes in what an event tells.
func (w *watch) see(e *tcplabv1.GuestEvent) {
	w.clock, w.arrived = e.GetClock().AsDuration(), time.Now()
	if alive := e.GetAlive(); alive != nil {
		w.answered++
		w.running = append(w.running, alive.GetRunning())
	}
}

// run asks the guest what it does, and gives it up when its clock stands still.
func (w *watch) run(ctx context.Context, g *guest, console *os.File, giveUp context.CancelCauseFunc) {
	defer console.Close()
	ticker := time.NewTicker(g.cfg.Spin / asks)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		err, process := w.judge(g.cfg.Spin), g.process
		g.mu.Unlock()
		if err != nil {
			giveUp(err)
			return
		}
		if err := console.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			g.cfg.Log.Debug("bound a question to a guest", "error", err)
		}
		// A guest that does not read it does not answer, which is noticed.
		_, _ = console.WriteString("\n")
		if process != nil && g.request.GetTime() == tcplabv1.TimeMode_TIME_MODE_VIRTUAL {
			// The kernel notes what comes in, and waits for the program that runs to come back to it. Its timer's
			// signal stops that program, and the thread that answers is next (um_timer_irq, arch/um/kernel/time.c).
			// A kernel that has ended gets none.
			_ = process.Signal(unix.SIGALRM)
		}
	}
}

// judge is called before each question: it is an error that the clock stood still over the last ones.
func (w *watch) judge(spin time.Duration) error {
	w.before, w.heard = append(w.before, w.clock), append(w.heard, w.answered)
	n := len(w.before)
	if n <= asks {
		return nil
	}
	moved, answers := w.before[n-1]-w.before[n-1-asks], w.heard[n-1]-w.heard[n-1-asks]
	if moved > time.Duration(stillness*float64(spin)) {
		return nil
	}
	if answers == 0 {
		return fmt.Errorf("the guest's clock stood still at %v for %v of real time, and tcplab in the guest does not answer: it or its kernel hangs", w.clock, spin)
	}
	var names []string
	last := w.running[len(w.running)-answers:]
	for _, name := range last[0] {
		if !slices.ContainsFunc(last, func(all []string) bool { return !slices.Contains(all, name) }) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("the guest's clock stood still at %v for %v of real time: nothing runs in it and nothing is due", w.clock, spin)
	}
	return fmt.Errorf("%s in the guest spins: it ran for %v of real time while the virtual clock stood still at %v. Virtual time goes on when a program waits; --virtual=relaxed lets it go on while one computes",
		strings.Join(names, ", "), spin, w.clock)
}

// suspects are the programs that ran whenever the guest was asked, for a sentence about how long it took;
// empty: none.
func (w *watch) suspects() string {
	count := make(map[string]int)
	for _, all := range w.running {
		for _, name := range all {
			count[name]++
		}
	}
	var names []string
	for name, n := range count {
		if 2*n > len(w.running) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return fmt.Sprintf("; %s ran most of it: a program that polls the clock is slow in virtual time, and --virtual=relaxed serves it", strings.Join(names, ", "))
}
