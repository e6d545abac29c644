package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// repaintEvery is how often the line on a terminal is drawn anew, so that its
// clock moves.
const repaintEvery = 100 * time.Millisecond

// progress shows where a run is: one line that is drawn again and again on a
// terminal, plain lines in a pipe. It is closed once its run has ended.
type progress struct {
	app      *app
	id       string
	total    int
	started  time.Time // of the first trial
	done     int
	mu       sync.Mutex
	line     string
	detail   string // as last said
	stop     chan struct{}
	stopped  chan struct{}
	stopOnce sync.Once
}

func (a *app) newProgress(run *tcplabv1.Run) *progress {
	p := &progress{app: a, id: run.GetId(), total: int(run.GetTrialsCount()), stop: make(chan struct{}), stopped: make(chan struct{})}
	if title := run.GetTitle(); title != "" {
		p.print(fmt.Sprintf("%s: %s", p.id, title))
	} else {
		p.print(p.id + ": " + run.GetLab())
	}
	go p.paint()
	return p
}

// paint redraws the line until close. In a pipe it has nothing to do.
func (p *progress) paint() {
	defer close(p.stopped)
	if !p.app.Terminal {
		return
	}
	ticker := time.NewTicker(repaintEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// close wipes the line. Later calls do nothing.
func (p *progress) close() {
	p.stopOnce.Do(func() {
		close(p.stop)
		<-p.stopped
		if p.app.Terminal && p.line != "" {
			p.app.printf("\r\x1b[K")
		}
	})
}

// show takes in one event of the run.
func (p *progress) show(event *tcplabv1.RunEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.GetEvent().(type) {
	case *tcplabv1.RunEvent_Run:
		if e.Run.GetState() == tcplabv1.RunState_RUN_STATE_PENDING {
			p.line = "waits for its turn"
		}
	case *tcplabv1.RunEvent_Trial:
		p.trial(e.Trial)
	case *tcplabv1.RunEvent_Expectation:
		p.line = "evaluating " + e.Expectation.GetName()
	case *tcplabv1.RunEvent_Held:
		p.held(e.Held)
	}
	if p.app.Terminal {
		p.draw()
	}
}

func (p *progress) trial(t *tcplabv1.TrialProgress) {
	if p.started.IsZero() {
		p.started = time.Now()
	}
	what := fmt.Sprintf("trial %d of %d", t.GetNumber(), p.total)
	if point := pointText(t.GetPoint()); point != "" {
		what += " (" + point + ")"
	}
	phase := phaseWord(t.GetPhase())
	switch t.GetPhase() {
	case tcplabv1.TrialPhase_TRIAL_PHASE_DONE:
		p.done++
	case tcplabv1.TrialPhase_TRIAL_PHASE_FAILED:
		phase += ": " + t.GetDetail()
	default:
		// Which engines and why: said once, and again when it changes.
		if detail := t.GetDetail(); detail != "" && detail != p.detail {
			p.detail = detail
			p.print(p.id + ": " + detail)
		}
	}
	p.line = what + " " + phase
	if !p.app.Terminal {
		p.print(fmt.Sprintf("%s: %s", p.id, p.line))
	}
}

func (p *progress) held(h *tcplabv1.NodesHeld) {
	lines := []string{p.id + ": the nodes are held; enter one with a command below, end with Ctrl-C"}
	for _, node := range h.GetNodes() {
		lines = append(lines, fmt.Sprintf("  %s (%s): %s", node.GetName(), strings.Join(node.GetAddresses(), ", "), enterCommand(node.GetNetnsPath())))
	}
	p.line = "held; Ctrl-C ends it"
	p.print(strings.Join(lines, "\n"))
}

// print writes whole lines, above the painted one.
func (p *progress) print(text string) {
	if p.app.Terminal {
		p.app.printf("\r\x1b[K%s\n", text)
		return
	}
	p.app.printf("%s\n", text)
}

// draw paints the line, cut to the terminal's width.
func (p *progress) draw() {
	if p.line == "" {
		return
	}
	text := p.line
	if !p.started.IsZero() {
		elapsed := time.Since(p.started)
		text = fmt.Sprintf("%s %s  %s", bar(p.done, p.total, 20), p.line, roughly(elapsed))
		if p.done > 0 && p.done < p.total {
			left := elapsed / time.Duration(p.done) * time.Duration(p.total-p.done)
			text += ", about " + roughly(left) + " left"
		}
	}
	p.app.printf("\r\x1b[K%s", ansi.Truncate(text, p.app.Width-1, "…"))
}

// bar draws how much of the trials is done, width columns wide.
func bar(done, total, width int) string {
	filled := 0
	if total > 0 {
		filled = min(width, done*width/total)
	}
	return strings.Repeat("━", filled) + strings.Repeat("┄", width-filled)
}
