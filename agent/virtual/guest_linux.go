package virtual

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcplab/tcplab/agent/spool"
	"github.com/tcplab/tcplab/internal/rpcerr"
	"github.com/tcplab/tcplab/internal/uml"
	"github.com/tcplab/tcplab/internal/uml/kernel"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// The files by which host and guest speak, in the guest's folder.
const (
	initFile    = "init"    // a link to this program, which is the guest's init
	requestFile = "request" // a GuestRequest
	eventsFile  = "events"  // GuestEvents, each behind its length
	spoolDir    = "spool"   // of the agent in the guest
	journalDir  = "journals"
)

// guest is one guest kernel with one trial. Its goroutine ends with the kernel.
type guest struct {
	id      string // of its deployment, and of the trial in its spool
	cfg     Config
	number  int // in the order in which they were made
	dir     string
	request *tcplabv1.ApplyRequest
	kernel  kernel.Kernel

	kill context.CancelCauseFunc // ends it
	life context.Context         // ends with it
	done chan struct{}           // closed when the kernel has ended and nothing more comes; nil before the boot
	once sync.Once               // removal

	booted time.Time // and constant from then on

	mu      sync.Mutex             // guards what is below
	events  []*tcplabv1.GuestEvent // all but those of being alive
	changed chan struct{}          // closed at the next event and at the end
	over    bool                   // the kernel has ended
	fault   error                  // why it ended without a result
	trial   string                 // the ID that the controller gave its trial; empty: not started
	spool   *spool.Spool           // open once the kernel has ended, until removal
	watch   watch
	process *os.Process // the kernel's; nil before it runs
}

func newGuest(life context.Context, cfg Config, r *tcplabv1.ApplyRequest, number int) *guest {
	g := &guest{
		id: r.GetDeploymentId(), cfg: cfg, number: number, request: r,
		dir: filepath.Join(cfg.Dir, strconv.Itoa(number)), done: make(chan struct{}), changed: make(chan struct{}),
	}
	g.life, g.kill = context.WithCancelCause(life)
	return g
}

// boot lays out the guest's folder and starts the kernel. Where it fails nothing runs.
func (g *guest) boot() (err error) {
	defer func() {
		if err != nil {
			g.end(err)
		}
	}()
	if strings.ContainsAny(g.dir, " \t\"") {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.Storage, "Choose a state directory without a space in its name.",
			"the guest's folder %q cannot be named to a kernel", g.dir)
	}
	if g.kernel, err = kernel.Find(g.cfg.Kernels...); err != nil {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "Build it, which takes some minutes once: tcplab kernel build.",
			"virtual time: %w", err)
	}
	if err := g.prepare(); err != nil {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.Storage, "Check the state directory.", "prepare a guest: %w", err)
	}
	ask, asks, err := os.Pipe() // its console, by which it is asked what it does
	if err != nil {
		return fmt.Errorf("prepare a guest: %w", err)
	}
	bell := newBell()
	log := &uml.Tail{}
	g.booted = time.Now()
	ctx, cancel := context.WithCancelCause(g.life)
	limit := time.AfterFunc(g.cfg.Limit, func() { cancel(errLimit) })
	go g.follow(bell)
	go g.watch.run(ctx, g, asks, cancel)
	go func() {
		err := uml.Boot(ctx, g.machine(log, bell, ask))
		limit.Stop()
		cause := context.Cause(ctx)
		cancel(nil)
		bell.close()
		<-bell.followed
		g.end(g.explain(cause, err, log))
	}()
	return nil
}

// prepare lays out the folder.
func (g *guest) prepare() error {
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(g.dir, initFile)); err != nil {
		return err
	}
	content, err := proto.Marshal(&tcplabv1.GuestRequest{TrialId: g.id, Lab: g.request.GetLab(), Time: g.request.GetTime(), Exec: g.request.GetExec()})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(g.dir, requestFile), content, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(g.dir, eventsFile), nil, 0o600)
}

// machine says how the kernel is booted.
func (g *guest) machine(log *uml.Tail, bell *bell, ask *os.File) uml.Machine {
	// The clock begins at the same moment each time, for random numbers follow from it too.
	mode := []string{"time-travel=inf-cpu", fmt.Sprintf("time-travel-start=%d", epoch.UnixNano())}
	if g.request.GetTime() == tcplabv1.TimeMode_TIME_MODE_RELAXED {
		mode = []string{"time-travel"}
	}
	cpu := runtime.NumCPU() - 1 - g.number%runtime.NumCPU()
	m := uml.Machine{
		Kernel: g.kernel.Path, Dir: g.dir, Memory: g.cfg.Memory, CPU: &cpu,
		Params:  slices.Concat(mode, []string{"init=" + filepath.Join(g.dir, initFile)}, g.guestParams(), g.cfg.params),
		Outputs: []io.Writer{log, bell},
		Input:   ask,
		Log:     log,
		Tied:    true,
		Started: func(p *os.Process) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.process = p
		},
		Env: []string{kernel.SeedVariable + "=" + strconv.FormatUint(g.seed(), 10)},
	}
	m.Params = append(m.Params, "--", initArg, g.dir)
	return m
}

// epoch is when the clock of a guest starts: in virtual time it is always then.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

// guestParams become the environment of the guest's init.
//
// A thread that waits in a system call keeps one of GOMAXPROCS rights to run Go until Go's monitor takes it away,
// which on the virtual clock comes 20 µs to 10 ms later. With one right, the one processor's default,
// the fastest of nagle's transactions took 12 ms in place of 2; with more rights than threads nobody waits. On the
// other hand, a goroutine that waits in a loop of runtime.Gosched for one on another thread then never
// sees its end: the clock, which would have the kernel change threads, stands still. Go's
// collector does that where it is called by runtime.GC; it is off, and comes to life
// when half of the guest's memory is full.
func (g *guest) guestParams() []string {
	return []string{
		fmt.Sprintf("GOMAXPROCS=%d", rights), "GOGC=off", fmt.Sprintf("GOMEMLIMIT=%d", g.cfg.Memory/2),
		"PATH=" + os.Getenv("PATH"),
	}
}

// seed is that of the guest's random numbers. It follows from the lab with its seeds: the same trial again draws
// the same.
func (g *guest) seed() uint64 {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(g.request.GetLab())
	if err != nil {
		return 1
	}
	sum := sha256.Sum256(content)
	return binary.BigEndian.Uint64(sum[:])
}

// explain is why the kernel ended, where that was not its own will.
func (g *guest) explain(cause, ended error, log *uml.Tail) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.events); n > 0 && isLast(g.events[n-1]) {
		return nil
	}
	switch {
	case errors.Is(cause, errLimit):
		return fmt.Errorf("the trial took longer than %v of real time, in which %v of virtual time passed%s", g.cfg.Limit, g.watch.clock.Round(time.Millisecond), g.watch.suspects())
	case cause != nil:
		return cause
	}
	text := strings.TrimSpace(log.String())
	if ended == nil {
		ended = errors.New("it powered off")
	}
	return fmt.Errorf("the guest kernel ended without a result: %w; its last words:\n%s", ended, text)
}

// errLimit says that the real time is up.
var errLimit = errors.New("the real time for one trial is up")

// isLast reports whether a guest says no more after an event.
func isLast(e *tcplabv1.GuestEvent) bool {
	switch {
	case e.GetFailed() != nil, e.GetTrial().GetTrialEnded() != nil:
		return true
	case e.GetVerified() != nil:
		return wrong(e.GetVerified())
	}
	return false
}

// end says that the kernel has ended, or was never started.
func (g *guest) end(fault error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over, g.fault = true, fault
	close(g.changed)
	g.changed = make(chan struct{})
	close(g.done)
	g.kill(nil)
}

// add takes in an event.
func (g *guest) add(e *tcplabv1.GuestEvent) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watch.see(e)
	g.cfg.Log.Debug("a guest reports", "guest", g.id, "event", fmt.Sprintf("%T", e.GetEvent()), "virtual", g.watch.clock, "real", time.Since(g.booted))
	if e.GetAlive() != nil {
		return
	}
	g.events = append(g.events, e)
	close(g.changed)
	g.changed = make(chan struct{})
}

// await waits for the event with that number. The error is the guest's, where it ended before that.
func (g *guest) await(ctx context.Context, number int) (*tcplabv1.GuestEvent, error) {
	for {
		g.mu.Lock()
		events, over, fault, changed := g.events, g.over, g.fault, g.changed
		g.mu.Unlock()
		switch {
		case number < len(events):
			return events[number], nil
		case over && fault == nil:
			return nil, errors.New("the guest has ended")
		case over:
			return nil, fault
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// first waits for the first event of a kind, and returns the guest's own error where it gave up before.
func (g *guest) first(ctx context.Context, is func(*tcplabv1.GuestEvent) bool) (*tcplabv1.GuestEvent, error) {
	for number := 0; ; number++ {
		e, err := g.await(ctx, number)
		if err != nil {
			return nil, err
		}
		if e.GetFailed() != nil {
			return nil, failedError(e)
		}
		if is(e) {
			return e, nil
		}
	}
}

// failedError is the error that the agent in a guest answered.
func failedError(e *tcplabv1.GuestEvent) error {
	told := &status.Status{}
	if err := proto.Unmarshal(e.GetFailed(), told); err != nil {
		return fmt.Errorf("decode the guest's error: %w", err)
	}
	return grpcstatus.ErrorProto(told)
}

// sealed waits for the kernel's end and reads the trial's result from the spool that it left.
func (g *guest) sealed(ctx context.Context, last *tcplabv1.GuestEvent) (*tcplabv1.TrialEnded, error) {
	select {
	case <-g.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spool == nil {
		s, err := spool.Open(filepath.Join(g.dir, spoolDir), false)
		if err != nil {
			return nil, err
		}
		g.spool = s
	}
	ended, err := g.spool.Result(g.id)
	if err != nil {
		if last.GetTrial().GetTrialEnded().GetFailure() != "" { // it could not be sealed, and says why
			return last.GetTrial().GetTrialEnded(), nil
		}
		return nil, err
	}
	passed, wall := last.GetClock().AsDuration(), g.watch.arrived.Sub(g.booted)
	if result := ended.GetResult(); result != nil {
		result.Time = g.request.GetTime()
		result.VirtualTime = &tcplabv1.VirtualTime{
			ConfigHash: g.kernel.ConfigHash, Source: g.kernel.Source,
			Passed: durationpb.New(passed), Wall: durationpb.New(wall), Speedup: passed.Seconds() / wall.Seconds(),
		}
	}
	return ended, nil
}

// remove kills the kernel, waits for its end and removes its files.
func (g *guest) remove(why error) (err error) {
	g.once.Do(func() {
		g.kill(why)
		<-g.done
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.spool != nil {
			err = g.spool.Close()
		}
		if err = errors.Join(err, os.RemoveAll(g.dir)); err != nil {
			err = fmt.Errorf("remove guest %s: %w", g.id, err)
		}
	})
	return err
}
