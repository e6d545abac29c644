package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/tests/fleet"
)

// Sizes of the machines' disks (tmpfs(5)), which a fault fills.
const (
	controllerDisk = "256m"
	agentDisk      = "48m"
)

const controller = "controller"

// soak is the fleet and what is known of its runs.
type soak struct {
	fleet   *fleet.Fleet
	dir     string
	random  *rand.Rand
	began   time.Time
	hosts   []string
	faults  map[string]int
	stop    context.CancelFunc // of who has runs
	workers sync.WaitGroup

	mu     sync.Mutex
	ended  map[string]seen // runs that the controller said have ended
	asked  int
	exits  map[int]int // of tcplab run
	errors []error     // what must not be
}

// seen is what the controller said of a run.
type seen struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Verdict string `json:"verdict"`
	Failure string `json:"failure"`
}

func (s seen) over() bool { return s.State != "RUN_STATE_PENDING" && s.State != "RUN_STATE_RUNNING" }

// begin makes the fleet and has runs go on.
func begin(ctx context.Context, tcplab, dir string, seed uint64) (*soak, error) {
	s := &soak{
		dir: dir, random: rand.New(rand.NewPCG(seed, 0)), began: time.Now(), hosts: []string{"host-a", "host-b", "host-c"},
		faults: map[string]int{}, ended: map[string]seen{}, exits: map[int]int{}, stop: func() {},
	}
	disks := map[string]string{controller: controllerDisk}
	for _, host := range s.hosts {
		disks[host] = agentDisk
	}
	for name, size := range disks {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, 0o700); err != nil {
			return nil, err
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size="+size); err != nil {
			return nil, fmt.Errorf("make a small disk: %w", err)
		}
	}
	var err error
	if s.fleet, err = fleet.New(tcplab, dir); err != nil {
		return nil, err
	}
	err = s.fleet.StartController()
	for _, host := range s.hosts {
		if err == nil {
			err = s.fleet.Join(ctx, host, "")
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	working, stop := context.WithCancel(ctx)
	s.stop = stop
	for _, host := range s.hosts {
		lab, err := s.lab(host)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.workers.Go(func() { s.work(working, lab) })
	}
	s.workers.Go(func() { s.watch(working) })
	return s, nil
}

// close ends all.
func (s *soak) close() error {
	s.stop()
	s.workers.Wait()
	err := s.fleet.Close()
	for _, name := range append(s.hosts, controller) {
		err = errors.Join(err, unix.Unmount(filepath.Join(s.dir, name), unix.MNT_DETACH))
	}
	return err
}

// lab writes a lab of a few short trials on a host.
func (s *soak) lab(host string) (path string, err error) {
	path = filepath.Join(s.dir, host+".yaml")
	return path, os.WriteFile(path, []byte(`name: soak
nodes: {client: {on: `+host+`}, server: {on: `+host+`}}
links:
  - between: [client, server]
    rtt: 10ms
    rate: 10Mbit
experiments:
  - flows:
      - name: up
        bulk: {from: client, to: server, bytes: 1MB}
repeat: 3
expect:
  - name: one connection
    that: counter.client.TcpActiveOpens == 1
`), 0o600)
}

// work has one run after another, until ctx ends.
func (s *soak) work(ctx context.Context, lab string) {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, 90*time.Second)
		result, err := s.fleet.Tcplab(call, "--context", "local", "run", lab)
		cancel()
		s.mu.Lock()
		s.asked++
		if err == nil {
			s.exits[result.Status]++
		}
		s.mu.Unlock()
		pause(ctx, 300*time.Millisecond)
	}
}

// watch notes which runs the controller says have ended, until ctx ends.
func (s *soak) watch(ctx context.Context) {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		all, err := s.runs(call)
		cancel()
		if err == nil {
			s.note(all)
		}
		pause(ctx, 500*time.Millisecond)
	}
}

// note keeps what ended, and that nothing ends twice in different ways.
func (s *soak) note(all []seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range all {
		before, known := s.ended[r.ID]
		switch {
		case known && r != before:
			s.errors = append(s.errors, fmt.Errorf("run %s had ended as %v and is now %v", r.ID, before, r))
		case r.over():
			s.ended[r.ID] = r
		}
	}
}

// runs asks the controller.
func (s *soak) runs(ctx context.Context) ([]seen, error) {
	out, err := s.fleet.Admin(ctx, "runs", "list", "--most", "1000", "-o", "json")
	if err != nil {
		return nil, err
	}
	var page struct {
		Runs []seen `json:"runs"`
	}
	return page.Runs, json.Unmarshal([]byte(out), &page)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// say prints progress.
func (s *soak) say(format string, args ...any) {
	fmt.Fprintf(os.Stdout, "%7.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// within draws a time.
func (s *soak) within(least, most time.Duration) time.Duration {
	return least + time.Duration(s.random.Int64N(int64(most-least)))
}

// trouble has faults of all kinds.
func (s *soak) trouble(ctx context.Context, duration time.Duration) error {
	end := time.Now().Add(duration)
	for time.Now().Before(end) && ctx.Err() == nil {
		pause(ctx, s.within(time.Second, 6*time.Second))
		host := s.hosts[s.random.IntN(len(s.hosts))]
		var err error
		switch s.random.IntN(12) {
		case 0, 1, 2:
			err = s.killAgent(ctx, host, s.within(0, 3*time.Second))
		case 3, 4:
			err = s.killController(ctx, s.within(0, 3*time.Second))
		case 5, 6:
			err = s.cut(ctx, host, s.within(time.Second, 20*time.Second), s.random.IntN(3) == 0)
		case 7, 8:
			err = s.fill(ctx, host, s.within(2*time.Second, 8*time.Second))
		case 9, 10:
			err = s.skew(ctx, host)
		default:
			err = s.fill(ctx, controller, s.within(2*time.Second, 8*time.Second))
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *soak) killAgent(ctx context.Context, host string, down time.Duration) error {
	s.faults["agent killed"]++
	s.say("kill -9 the agent of %s, which starts again after %v", host, down.Round(time.Millisecond))
	if err := s.fleet.KillAgent(host); err != nil {
		return err
	}
	pause(ctx, down)
	return s.fleet.LaunchAgent(host)
}

func (s *soak) killController(ctx context.Context, down time.Duration) error {
	s.faults["controller killed"]++
	s.say("kill -9 the controller, which starts again after %v", down.Round(time.Millisecond))
	if err := s.fleet.KillController(); err != nil {
		return err
	}
	pause(ctx, down)
	return s.fleet.StartController()
}

func (s *soak) cut(ctx context.Context, host string, length time.Duration, kill bool) error {
	s.faults["network cut"]++
	s.say("cut %s off for %v", host, length.Round(time.Millisecond))
	if err := s.fleet.Cut(host); err != nil {
		return err
	}
	pause(ctx, length/2)
	if kill {
		if err := s.killController(ctx, 0); err != nil {
			return err
		}
	}
	pause(ctx, length/2)
	return s.fleet.Heal(host)
}

// fill leaves a machine no room on its disk for a while. A process that ends of it is started again, as a service would be.
func (s *soak) fill(ctx context.Context, machine string, length time.Duration) error {
	s.faults["disk filled"]++
	s.say("fill the disk of %s for %v", machine, length.Round(time.Millisecond))
	ballast := filepath.Join(s.fleet.Folder(machine), "ballast")
	file, err := os.Create(ballast)
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	if err == nil {
		for size := 1 << 20; size >= 1<<12; size /= 2 {
			for err = nil; err == nil; {
				_, err = file.Write(make([]byte, size))
			}
		}
		_ = file.Close()
		if !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("fill a disk: %w", err)
		}
	}
	pause(ctx, length)
	if err := os.Remove(ballast); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return s.revive()
}

// skewMost is below what a new certificate allows for (controller/access).
const skewMost = 4 * time.Minute

// skew sets a host's clock, for as long as its agent lives, and waits until the controller has found out.
func (s *soak) skew(ctx context.Context, host string) error {
	ahead := (s.within(0, 2*skewMost) - skewMost).Round(time.Second)
	s.faults["clock skewed"]++
	s.say("skew the clock of %s by %v", host, ahead)
	if !s.fleet.Runs(host) {
		return nil
	}
	if err := s.fleet.SkewClock(host, ahead); err != nil {
		return err
	}
	limit := time.Now().Add(skewFound)
	for ctx.Err() == nil {
		found, err := s.offset(ctx, host)
		if err == nil && (found-ahead).Abs() < time.Second {
			return nil
		}
		if time.Now().After(limit) {
			s.mu.Lock()
			s.errors = append(s.errors, fmt.Errorf("after %v the controller takes the clock of %s to be %v ahead, and it is %v, error %w", skewFound, host, found, ahead, err))
			s.mu.Unlock()
			return nil
		}
		pause(ctx, time.Second)
	}
	return nil
}

// skewFound bounds how long a controller takes to see that a clock was set: the agent may have started just now and be waiting
// to dial, up to 15 s, and is asked each 4 s.
const skewFound = 40 * time.Second

// offset is how far the controller takes a host's clock to be ahead.
func (s *soak) offset(ctx context.Context, host string) (time.Duration, error) {
	out, err := s.fleet.Admin(ctx, "hosts", "list", "-o", "json")
	if err != nil {
		return 0, err
	}
	var page struct {
		Hosts []struct {
			Name  string `json:"name"`
			Clock struct {
				Offset string `json:"offset"`
			} `json:"clock"`
		} `json:"hosts"`
	}
	if err := json.Unmarshal([]byte(out), &page); err != nil {
		return 0, err
	}
	for _, h := range page.Hosts {
		if h.Name == host {
			return time.ParseDuration(h.Clock.Offset)
		}
	}
	return 0, fmt.Errorf("no host is called %s", host)
}

// revive starts what has ended by itself.
func (s *soak) revive() error {
	if !s.fleet.Runs(controller) {
		s.say("the controller had ended: %s", lastLine(s.fleet.ControllerSaid()))
		if err := s.fleet.StartController(); err != nil {
			return err
		}
	}
	for _, host := range s.hosts {
		if s.fleet.Runs(host) {
			continue
		}
		s.say("the agent of %s had ended: %s", host, lastLine(s.fleet.Said(host)))
		if err := s.fleet.LaunchAgent(host); err != nil {
			return err
		}
	}
	return nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// age has faults that no process should end of, and compares what processes hold before and after.
func (s *soak) age(ctx context.Context, length time.Duration) error {
	before, err := s.fresh(ctx)
	if err != nil {
		return err
	}
	s.say("processes grow older for %v, cut off and starved but not killed", length)
	end := time.Now().Add(length)
	for time.Now().Before(end) && ctx.Err() == nil {
		host := s.hosts[s.random.IntN(len(s.hosts))]
		switch s.random.IntN(3) {
		case 0:
			err = s.cut(ctx, host, s.within(time.Second, 12*time.Second), false)
		case 1:
			err = s.skew(ctx, host)
		default:
			err = s.fill(ctx, host, s.within(time.Second, 3*time.Second))
		}
		if err != nil {
			return err
		}
		pause(ctx, s.within(time.Second, 4*time.Second))
	}
	s.stop()
	s.workers.Wait()
	if err := s.settle(ctx); err != nil {
		return err
	}
	after, err := s.holdings(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		s.say("%s: %d descriptors and %d goroutines, before %d and %d", name, after[name].descriptors, after[name].goroutines, before[name].descriptors, before[name].goroutines)
		if after[name].descriptors > before[name].descriptors+slack || after[name].goroutines > before[name].goroutines+slack {
			s.errors = append(s.errors, fmt.Errorf("%s leaks: it has %d descriptors and %d goroutines, and had %d and %d\n%s", name,
				after[name].descriptors, after[name].goroutines, before[name].descriptors, before[name].goroutines, after[name].dump))
		}
	}
	return nil
}

// slack is what a process may have more of: idle connections of its database, a call under way.
const slack = 6

// holding is what a process has.
type holding struct {
	descriptors, goroutines int
	dump                    string
}

// fresh starts all processes anew, has a run on each host, and looks at what they hold; then they start once more.
func (s *soak) fresh(ctx context.Context) (map[string]holding, error) {
	s.stop()
	s.workers.Wait()
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	if err := s.restart(); err != nil {
		return nil, err
	}
	for _, host := range s.hosts {
		if result, err := s.fleet.Tcplab(ctx, "--context", "local", "run", filepath.Join(s.dir, host+".yaml")); err != nil || result.Status != 0 {
			return nil, fmt.Errorf("a run on %s after all trouble: exit status %d, error %w: %s%s", host, result.Status, err, result.Stdout, result.Stderr)
		}
	}
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	before, err := s.holdings(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	working, stop := context.WithCancel(ctx)
	s.stop = stop
	for _, host := range s.hosts {
		s.workers.Go(func() { s.work(working, filepath.Join(s.dir, host+".yaml")) })
	}
	s.workers.Go(func() { s.watch(working) })
	return before, nil
}

// restart ends all processes in order, and starts them.
func (s *soak) restart() error {
	for _, host := range s.hosts {
		if err := s.fleet.StopAgent(host); err != nil {
			return err
		}
	}
	if err := s.fleet.StopController(); err != nil {
		return err
	}
	return s.start()
}

func (s *soak) start() error {
	if err := s.fleet.StartController(); err != nil {
		return err
	}
	for _, host := range s.hosts {
		if err := s.fleet.StartAgent(host); err != nil {
			return err
		}
	}
	return nil
}

// holdings looks at what idle processes hold, and ends them; the controller last, when it has let go of the hosts.
func (s *soak) holdings(ctx context.Context) (map[string]holding, error) {
	all := map[string]holding{}
	for _, name := range append(slices.Clone(s.hosts), controller) {
		if name == controller {
			pause(ctx, 3*time.Second)
		}
		descriptors, err := s.fleet.Descriptors(name)
		if err != nil {
			return nil, err
		}
		goroutines, dump, err := s.fleet.Quit(name)
		if err != nil {
			return nil, err
		}
		all[name] = holding{descriptors, goroutines, dump}
	}
	return all, nil
}

// settleWithin bounds what runs that are under way may take to end, once there is no more trouble: a trial on a host that lost it,
// and a controller's patience with hosts.
const settleWithin = 6 * time.Minute

// settle waits until no run is under way.
func (s *soak) settle(ctx context.Context) error {
	if err := s.revive(); err != nil {
		return err
	}
	s.say("all is well again; the runs under way may end")
	limit := time.Now().Add(settleWithin)
	for {
		all, err := s.runs(ctx)
		if err != nil {
			return err
		}
		s.note(all)
		var under []string
		for _, r := range all {
			if !r.over() {
				under = append(under, r.ID)
			}
		}
		if len(under) == 0 {
			pause(ctx, 2*time.Second) // what ends after a run
			return nil
		}
		if time.Now().After(limit) || ctx.Err() != nil {
			return fmt.Errorf("%d runs are stuck: %s\ncontroller: %s", len(under), strings.Join(under, " "), tail(s.fleet.ControllerSaid()))
		}
		pause(ctx, time.Second)
	}
}

func tail(text string) string {
	lines := bytes.Split([]byte(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
}
