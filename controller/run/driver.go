package run

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tcplab/tcplab/controller/lease"
	"github.com/tcplab/tcplab/controller/store"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Config is what a Driver works with.
type Config struct {
	Store *store.Store
	// Agent is the one host of an embedded lab; not used where there are Hosts.
	Agent tcplabv1.AgentServiceClient
	// Hosts are those of a fleet; nil: there is Agent alone.
	Hosts Hosts
	// Virtual carries those in virtual time; nil: there are none.
	Virtual tcplabv1.AgentServiceClient
	// Term of this controller, which commands carry; 0 in an embedded lab.
	Term uint64
	// Lease of deployments, 1 s to 24 h; 0 means lease.Default. It is renewed
	// three times as often.
	Lease time.Duration
	// Patience is how long a host may be out of reach until a trial on it is lost; 0: as long as the lease.
	Patience time.Duration
	// Lasting: runs outlive their controller. Those that have not ended when Drive does are left to the
	// next one, with what stands for them on the hosts, and Resume takes up those of the last one.
	Lasting bool
	// Log takes what is no run's failure. Never nil.
	Log *slog.Logger
}

// Driver drives runs, one at a time on each host, in the order of their creation.
type Driver struct {
	cfg      Config
	driving  sync.WaitGroup // runs under way; Drive's
	sampling *sampling

	mu      sync.Mutex
	queue   []*job          // not started, oldest first
	busy    map[string]bool // hosts with a run under way
	jobs    map[string]*job // unended, by run ID
	unsaved map[string]error
	wake    chan struct{} // has a value where the queue may have a job
	ending  bool
}

// job is a run that has not ended.
type job struct {
	run     *tcplabv1.Run
	plan    *Plan
	host    string // that carries it
	release func() // of its use of the host
	ctx     context.Context
	stop    context.CancelCauseFunc
}

// NewDriver makes a driver; Drive makes it go.
func NewDriver(cfg Config) *Driver {
	if cfg.Lease == 0 {
		cfg.Lease = lease.Default
	}
	if cfg.Hosts == nil {
		cfg.Hosts = onlyHost{cfg.Agent}
	}
	return &Driver{cfg: cfg, sampling: newSampling(), busy: map[string]bool{}, jobs: map[string]*job{}, unsaved: map[string]error{}, wake: make(chan struct{}, 1)}
}

// Create stores a run as pending, and has it driven after those created
// before on the same host. Where the request made a run before, that run is returned. Errors:
// those of store.CreateRun and Hosts.Choose; UNAVAILABLE once Drive has ended.
func (d *Driver) Create(ctx context.Context, run *tcplabv1.Run, plan *Plan, req store.Request) (*tcplabv1.Run, error) {
	d.mu.Lock() // over both steps: the queue has the order of creation
	defer d.mu.Unlock()
	if d.ending {
		return nil, rpcerr.New(codes.Unavailable, "", "", "create a run: the controller is stopping")
	}
	if earlier, err := d.cfg.Store.EarlierRun(ctx, req); earlier != nil || err != nil {
		return earlier, err // made before, whether or not its host is still there
	}
	host, err := d.cfg.Hosts.Choose(plan.points)
	if err != nil {
		return nil, err
	}
	if host != "" {
		run.Hosts = []string{host}
	}
	var kept *tcplabv1.RunPlan
	if d.cfg.Lasting {
		kept = plan.Message()
	}
	run, created, err := d.cfg.Store.CreateRun(ctx, run, kept, req)
	if err != nil || !created {
		return run, err
	}
	d.enter(proto.CloneOf(run), plan, host)
	return run, nil
}

// enter puts a run in the queue. The caller holds the mutex.
func (d *Driver) enter(run *tcplabv1.Run, plan *Plan, host string) {
	j := &job{run: run, plan: plan, host: host, release: d.cfg.Hosts.Use(host, "run/"+run.GetId())}
	j.ctx, j.stop = context.WithCancelCause(context.Background())
	d.jobs[run.GetId()] = j
	d.queue = append(d.queue, j)
	d.poke()
}

// Resume takes up the runs that an earlier controller left unended, oldest first. Call it once, before Drive.
func (d *Driver) Resume(ctx context.Context) error {
	left, err := d.cfg.Store.Unended(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range left {
		var points []*tcplabv1.Lab
		for _, point := range u.Plan.GetPoints() {
			points = append(points, point.GetLab())
		}
		plan, err := NewPlan(points, u.Run.GetOptions())
		if err != nil {
			return fmt.Errorf("take up run %s: %w", u.Run.GetId(), err)
		}
		host := ""
		if len(u.Run.GetHosts()) > 0 {
			host = u.Run.GetHosts()[0]
		}
		d.enter(u.Run, plan, host)
		d.cfg.Log.Info("a run is taken up", "run", u.Run.GetId(), "host", host, "trials done", u.Run.GetTrialsDone())
	}
	return nil
}

// Cancel stops a run. One that waits for its turn has ended when Cancel
// returns; one that is under way ends soon after. A run that has ended stays as
// it is. Errors: the store's.
func (d *Driver) Cancel(ctx context.Context, runID string) error {
	d.mu.Lock()
	j := d.jobs[runID]
	waiting := j != nil && slices.Contains(d.queue, j)
	if waiting {
		d.queue = slices.DeleteFunc(d.queue, func(other *job) bool { return other == j })
	}
	d.mu.Unlock()
	if j == nil {
		return nil
	}
	j.stop(errCancelled)
	if waiting {
		return d.finish(ctx, j, errCancelled, tcplabv1.Verdict_VERDICT_INCONCLUSIVE)
	}
	return nil
}

// Unsaved is the error for which a run's end could not be stored, or nil:
// nobody drives such a run any more, and no event of it will come.
func (d *Driver) Unsaved(runID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unsaved[runID]
}

// Drive drives runs until ctx ends; it then stops those under way, takes their
// deployments away, and stores them and those that wait as cancelled; or leaves all as it is, where
// runs are lasting. It returns within a second of ctx's end. Call it once.
func (d *Driver) Drive(ctx context.Context) {
	final, cancel := outlive(ctx, last)
	defer cancel()
	ending := errEnding
	if d.cfg.Lasting {
		ending = errLeft
	}
	for {
		j := d.next(ctx)
		if j == nil {
			break
		}
		d.driving.Go(func() {
			release := context.AfterFunc(ctx, func() { j.stop(ending) })
			defer release()
			d.carryOut(j)
			d.mu.Lock()
			delete(d.busy, j.host)
			d.mu.Unlock()
			d.poke()
		})
	}
	d.driving.Wait()
	if d.cfg.Lasting {
		return
	}
	for _, j := range d.rest() {
		j.stop(errEnding)
		if err := d.finish(final, j, errEnding, tcplabv1.Verdict_VERDICT_INCONCLUSIVE); err != nil {
			d.cfg.Log.Error("a run that waited could not be stored as cancelled", "run", j.run.GetId(), "error", err)
		}
	}
}

// next waits for a job. It returns nil when ctx has ended, and lets no further
// job in.
func (d *Driver) next(ctx context.Context) *job {
	for {
		if ctx.Err() != nil {
			d.mu.Lock()
			d.ending = true
			d.mu.Unlock()
			return nil
		}
		if j := d.pop(); j != nil {
			return j
		}
		select {
		case <-d.wake:
		case <-ctx.Done():
		}
	}
}

// pop takes the oldest job whose host has no other, and the host.
func (d *Driver) pop() *job {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, j := range d.queue {
		if d.busy[j.host] {
			continue
		}
		d.queue = slices.Delete(d.queue, i, i+1)
		d.busy[j.host] = true
		return j
	}
	return nil
}

// rest takes all jobs that wait.
func (d *Driver) rest() []*job {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.queue
	d.queue = nil
	return left
}

func (d *Driver) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// carryOut drives one run to its end.
func (d *Driver) carryOut(j *job) {
	// A timer of our own and no deadline: gRPC would send a deadline along, and
	// the agent's end of it may be the first to say that a call broke.
	ctx, cancel := context.WithCancelCause(j.ctx)
	defer cancel(nil)
	limit := j.plan.Timeout()
	timer := time.AfterFunc(limit, func() {
		cancel(failed(tcplabv1.FailureReason_FAILURE_REASON_TIMEOUT, "it took longer than its timeout of %v", limit))
	})
	defer timer.Stop()
	hasty, cancelHasty := outlive(j.ctx, haste)
	defer cancelHasty()
	final, cancelFinal := outlive(j.ctx, last)
	defer cancelFinal()
	agent := d.cfg.Hosts.Agent(j.host)
	if j.plan.Virtual() {
		agent = d.cfg.Virtual
	}
	verdict, fail := (&drive{Config: d.cfg, job: j, agent: agent, hasty: hasty, sampling: d.sampling}).all(ctx)
	if fail == errLeft {
		return // it is the next controller's
	}
	if err := d.finish(final, j, fail, verdict); err != nil {
		d.cfg.Log.Error("a run's end could not be stored", "run", j.run.GetId(), "error", err)
	}
}

// finish stores how a run ended, and forgets the job. Where the end cannot be
// stored, watchers are told why.
func (d *Driver) finish(ctx context.Context, j *job, fail *failure, verdict tcplabv1.Verdict) error {
	run := j.run
	run.State, run.Verdict, run.EndTime = tcplabv1.RunState_RUN_STATE_SUCCEEDED, verdict, timestamppb.Now()
	if fail != nil {
		run.State, run.FailureReason, run.Failure, run.Remedy = fail.state(), fail.reason, fail.words, fail.remedy
	}
	err := d.cfg.Store.Commit(ctx, run.GetId(), store.Change{Run: run, Events: []*tcplabv1.RunEvent{store.RunEvent(run)}})
	d.mu.Lock()
	delete(d.jobs, run.GetId())
	if err != nil {
		d.unsaved[run.GetId()] = err
	}
	d.mu.Unlock()
	d.sampling.end(run.GetId())
	j.stop(nil)
	j.release()
	if err != nil {
		d.cfg.Store.Wake()
	}
	return err
}

// What must still be done after a run was stopped, counted from then: its
// deployment goes in haste, its end is stored by last, and both within the
// second that an interrupted tcplab has.
const (
	haste = 500 * time.Millisecond
	last  = 800 * time.Millisecond
)

// patience bounds what is done at the end of a trial of a run that goes on.
const patience = 10 * time.Second

// outlive is a context that ends by after ctx does.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	release := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() {
		release()
		cancel()
	}
}
