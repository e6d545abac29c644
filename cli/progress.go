package cli

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// repaintEvery is how often the line on a terminal is looked at anew, so that
// its clock moves.
const repaintEvery = 100 * time.Millisecond

// echo is the room that a line leaves for the "^C" which the terminal writes
// behind it; a line that wraps could not be wiped.
const echo = 3

// progress shows where a run is: one line that is drawn again and again on a
// terminal, plain lines in a pipe. It is closed once its run has ended.
type progress struct {
	app      *app
	id       string
	total    int
	same     []string // the parameters that are the same in all trials
	stop     chan struct{}
	stopped  chan struct{}
	stopOnce sync.Once

	mu      sync.Mutex
	left    *timeLeft
	done    int    // trials
	what    string // what is under way; empty: nothing to draw
	flows   string // what they do at this moment; empty: nothing is known
	point   string // of the trial under way; what a narrow terminal leaves out
	detail  string // as last said
	failure string // of the trial that failed
	running bool   // flows run
	holds   bool   // the nodes, until interrupted: no time is left
}

func (a *app) newProgress(run *tcplabv1.Run, plan *tcplabv1.RunPlan) *progress {
	p := &progress{
		app: a, id: run.GetId(), total: int(run.GetTrialsCount()), left: newTimeLeft(plan),
		same: constant(pointsOf(plan.GetPoints())), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if title := run.GetTitle(); title != "" {
		p.print(title)
	} else {
		p.print(run.GetLab())
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
		p.mu.Lock()
		defer p.mu.Unlock()
		p.what = "" // nothing is drawn any more
		p.app.errs.paint("")
	})
}

// show takes in one event of the run.
func (p *progress) show(event *tcplabv1.RunEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.GetEvent().(type) {
	case *tcplabv1.RunEvent_Run:
		if e.Run.GetState() == tcplabv1.RunState_RUN_STATE_PENDING {
			p.what = "waits for its turn"
		}
	case *tcplabv1.RunEvent_Trial:
		p.trial(e.Trial)
	case *tcplabv1.RunEvent_Expectation:
		p.what, p.point = "evaluating", ""
	case *tcplabv1.RunEvent_Held:
		p.held(e.Held)
	}
	p.draw()
}

// live takes in what flows were last seen to do: the end of each that receives more, or else the one that sends more.
func (p *progress) live(news *tcplabv1.LiveSamples) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return
	}
	p.flows = liveText(news)
	p.draw()
}

// liveText is each flow in a few words.
func liveText(news *tcplabv1.LiveSamples) string {
	busiest := map[string]*tcplabv1.LiveSample{}
	var names []string
	for _, s := range news.GetSamples() {
		best, ok := busiest[s.GetFlow()]
		if !ok {
			names = append(names, s.GetFlow())
		}
		// The end that sends has the window and the round trip that tell.
		if !ok || s.GetAckedBps() > best.GetAckedBps() {
			busiest[s.GetFlow()] = s
		}
	}
	slices.Sort(names)
	var words []string
	for _, name := range names {
		s := busiest[name]
		words = append(words, fmt.Sprintf("%s %s cwnd %d rtt %s", name, quantity(s.GetAckedBps(), "bit/s"),
			s.GetTcpInfo().GetSndCwnd(), quantity(s.GetTcpInfo().GetRtt().AsDuration().Seconds(), "s")))
	}
	return strings.Join(words, ", ")
}

// stopping says that the run was told to end.
func (p *progress) stopping() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.what != "" {
		p.what, p.point, p.flows, p.running = "stopping", "", "", false
	}
	p.draw()
}

func (p *progress) trial(t *tcplabv1.TrialProgress) {
	phase := t.GetPhase()
	ended := phase == tcplabv1.TrialPhase_TRIAL_PHASE_DONE || phase == tcplabv1.TrialPhase_TRIAL_PHASE_FAILED
	p.left.trial(t.GetPoint(), ended, time.Now())
	p.point = pointText(without(t.GetPoint(), p.same))
	trial := fmt.Sprintf("trial %d of %d", t.GetNumber(), p.total)
	p.what = trial + " " + phaseWord(phase)
	p.running, p.flows = phase == tcplabv1.TrialPhase_TRIAL_PHASE_RUNNING, ""
	switch phase {
	case tcplabv1.TrialPhase_TRIAL_PHASE_BUILDING:
		p.say(trial + parenthesis(p.point))
	case tcplabv1.TrialPhase_TRIAL_PHASE_RUNNING:
		if t.GetDetail() == "" { // and not the name of its next experiment
			p.say(trial + " is running")
		}
	case tcplabv1.TrialPhase_TRIAL_PHASE_DONE:
		p.done++
		if _, left := p.left.at(time.Now()); p.done < p.total {
			p.say(fmt.Sprintf("%s done, %s left", trial, about(left)))
		}
	case tcplabv1.TrialPhase_TRIAL_PHASE_FAILED:
		// It is said when the run has ended, or with the nodes that are held.
		p.failure = t.GetDetail()
		return
	}
	// Which engines and why: said once, and again when it changes.
	if detail := t.GetDetail(); detail != "" && detail != p.detail {
		p.detail = detail
		p.print(detail)
	}
}

func (p *progress) held(h *tcplabv1.NodesHeld) {
	p.print(p.failure)
	lines := []string{"the nodes are held; enter one with its command below, end with Ctrl-C"}
	for _, node := range h.GetNodes() {
		lines = append(lines, fmt.Sprintf("  %s (%s): %s", node.GetName(), strings.Join(node.GetAddresses(), ", "), enterCommand(node.GetNetnsPath())))
	}
	p.what, p.point, p.holds = "holding the nodes; Ctrl-C ends it", "", true
	p.print(strings.Join(lines, "\n"))
}

// say writes a line in a pipe; on a terminal the painted one says it.
func (p *progress) say(text string) {
	if !p.app.Terminal {
		p.print(text)
	}
}

// print writes lines about the run.
func (p *progress) print(text string) { p.app.printf("%s: %s\n", p.id, text) }

// draw paints the line on a terminal.
func (p *progress) draw() {
	if !p.app.Terminal || p.what == "" {
		return
	}
	elapsed, left := p.left.at(time.Now())
	times := ""
	if elapsed > 0 && !p.holds {
		times = roughly(elapsed)
		if p.done < p.total {
			times += ", " + about(left) + " left"
		}
	}
	remark := parenthesis(p.point)
	if p.flows != "" {
		remark = ": " + p.flows
	}
	p.app.errs.paint(progressLine(p.done, p.total, p.what, remark, times, p.app.Width()-echo))
}

// progressLine fits a line into width columns. The times are never cut: the bar
// is left out first, then the point is shortened, and then what is under way.
func progressLine(done, total int, what, point, times string, width int) string {
	room := width - ansi.StringWidth(what)
	if times != "" {
		times = "  " + times
		room -= ansi.StringWidth(times)
	}
	// Two sizes, or the bar would breathe with the length of the words.
	for _, columns := range []int{20, 10} {
		if times != "" && columns+1+ansi.StringWidth(point) <= room {
			what = bar(done, total, columns) + " " + what
			room -= columns + 1
			break
		}
	}
	if leastPoint := 8; point != "" && room >= leastPoint {
		what += ansi.Truncate(point, room, "…")
	}
	return ansi.Truncate(what, max(0, width-ansi.StringWidth(times)), "…") + times
}

// parenthesis sets a remark behind what it is about.
func parenthesis(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// bar draws how much of the trials is done, width columns wide.
func bar(done, total, width int) string {
	filled := 0
	if total > 0 {
		filled = min(width, done*width/total)
	}
	return strings.Repeat("━", filled) + strings.Repeat("┄", width-filled)
}
