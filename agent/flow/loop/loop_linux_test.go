package loop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

// limit is when a loop that should long have ended is given up.
const limit = 30 * time.Second

func node(t testing.TB) *netns.Handle {
	t.Helper()
	need.NetNS(t)
	ns, err := netns.New("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// leakless fails the test when it leaves a goroutine or a descriptor.
func leakless(t *testing.T) {
	t.Helper()
	ignore, before := goleak.IgnoreCurrent(), descriptors(t)
	t.Cleanup(func() {
		goleak.VerifyNone(t, ignore)
		if n := descriptors(t); n != before {
			t.Errorf("%d descriptors are open, %d were", n, before)
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func run(t testing.TB, ns *netns.Handle, start func(*Loop) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := Run(ctx, ns, start)
	if ctx.Err() != nil {
		t.Fatal("the loop did not end")
	}
	return err
}

// ready is a handler from a function.
type ready func(events uint32)

func (r ready) Ready(events uint32) { r(events) }

func pair(t testing.TB) (here, there int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

var errDone = errors.New("done")

func TestTimersAreInOrderAndNeverEarly(t *testing.T) {
	ns := node(t)
	leakless(t)
	const count = 3000
	called := make([]time.Duration, 0, count) // when each was due
	all := make([]Timer, count)
	err := run(t, ns, func(l *Loop) error {
		begin := time.Now()
		for i := range all {
			due := time.Duration(rand.IntN(20_000)) * time.Microsecond
			all[i].Func = func() {
				if now := time.Since(begin); now < due {
					t.Errorf("due at %s, called at %s", due, now)
				}
				called = append(called, due)
				if len(called) == count*3/4 {
					l.End(errDone)
				}
			}
			// A quarter of them is stopped, each of the others moved once.
			l.Set(&all[i], begin.Add(-time.Duration(i)))
			if i%4 == 0 {
				l.Stop(&all[i])
				continue
			}
			l.Set(&all[i], begin.Add(due))
		}
		return nil
	})
	if !errors.Is(err, errDone) || !slices.IsSorted(called) {
		t.Errorf("%d timers, in order: %v; %v", len(called), slices.IsSorted(called), err)
	}
	for i := range all {
		if all[i].IsSet() {
			t.Errorf("timer %d is set", i)
		}
	}
}

// A timer that sets itself at once leaves their turn to descriptors.
func TestTimerDoesNotStarveDescriptors(t *testing.T) {
	ns := node(t)
	here, there := pair(t)
	defer unix.Close(there)
	if _, err := unix.Write(there, []byte("x")); err != nil {
		t.Fatal(err)
	}
	err := run(t, ns, func(l *Loop) error {
		busy := &Timer{}
		busy.Func = func() { l.Set(busy, time.Now()) }
		l.Set(busy, time.Now())
		return l.Add(here, unix.EPOLLIN, ready(func(uint32) { l.End(errDone) }))
	})
	if !errors.Is(err, errDone) {
		t.Error(err)
	}
}

func TestPostFromOtherGoroutines(t *testing.T) {
	ns := node(t)
	leakless(t)
	const each, posters = 500, 4
	seen := make([]int, posters)
	late := make(chan *Loop, 1)
	err := run(t, ns, func(l *Loop) error {
		late <- l
		for p := range posters {
			go func() {
				for i := range each {
					l.Post(func() {
						if seen[p] != i {
							t.Errorf("number %d of goroutine %d comes as number %d", i, p, seen[p])
						}
						seen[p]++
						if slices.Min(seen) == each {
							l.End(errDone)
						}
					})
				}
			}()
		}
		return nil
	})
	if !errors.Is(err, errDone) {
		t.Error(err)
	}
	if l := <-late; l.Post(func() { t.Error("called by a loop that has ended") }) {
		t.Error("a loop that has ended takes what is posted")
	}
}

func TestContextEndsTheLoopAndClosesAll(t *testing.T) {
	ns := node(t)
	leakless(t)
	here, there := pair(t)
	defer unix.Close(there)
	ctx, cancel := context.WithCancelCause(t.Context())
	err := Run(ctx, ns, func(l *Loop) error {
		l.Set(&Timer{Func: func() { t.Error("called too early") }}, time.Now().Add(time.Hour))
		if err := l.Add(here, unix.EPOLLIN, ready(func(uint32) {})); err != nil {
			return err
		}
		go cancel(errDone)
		return nil
	})
	if !errors.Is(err, errDone) {
		t.Error(err)
	}
	if n, err := unix.Read(there, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the other end reads %d bytes: %v", n, err)
	}
	if err := Run(ctx, ns, func(*Loop) error { t.Error("started"); return nil }); !errors.Is(err, errDone) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

func TestStartThatFails(t *testing.T) {
	ns := node(t)
	leakless(t)
	here, there := pair(t)
	defer unix.Close(there)
	err := run(t, ns, func(l *Loop) error {
		if err := l.Add(here, unix.EPOLLIN, ready(func(uint32) {})); err != nil {
			return err
		}
		return l.Add(-1, unix.EPOLLIN, ready(func(uint32) {}))
	})
	if !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
}

func TestCallbacksAreInTheNamespace(t *testing.T) {
	ns := node(t)
	inode, err := ns.Inode()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("net:[%d]", inode)
	check := func() {
		if got, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || got != want {
			t.Errorf("in %s, not %s: %v", got, want, err)
		}
	}
	err = run(t, ns, func(l *Loop) error {
		check()
		l.Set(&Timer{Func: func() { check(); l.End(nil) }}, time.Now().Add(time.Millisecond))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Edges: once for each change, and again where it is asked for.
func TestReadinessComesByEdge(t *testing.T) {
	ns := node(t)
	leakless(t)
	here, there := pair(t)
	defer unix.Close(there)
	var calls []uint32
	err := run(t, ns, func(l *Loop) error {
		pause := &Timer{}
		steps := []func(){
			func() { unix.Write(there, []byte("a")) },
			func() {}, // what is not read is not told again
			func() { unix.Write(there, []byte("b")) },
			func() {
				if err := l.Rearm(here, unix.EPOLLIN); err != nil {
					t.Error(err)
				}
			},
			func() { l.End(nil) },
		}
		pause.Func = func() {
			steps[0]()
			steps = steps[1:]
			l.Set(pause, time.Now().Add(time.Millisecond))
		}
		l.Set(pause, time.Now())
		return l.Add(here, unix.EPOLLIN, ready(func(events uint32) { calls = append(calls, events) }))
	})
	if err != nil || !slices.Equal(calls, []uint32{unix.EPOLLIN, unix.EPOLLIN, unix.EPOLLIN}) {
		t.Errorf("events %v: %v", calls, err)
	}
}

// An event of a descriptor that a callback of the same batch has closed is not told to the
// one that got its number.
func TestEventOfAClosedDescriptor(t *testing.T) {
	ns := node(t)
	leakless(t)
	a, toA := pair(t)
	b, toB := pair(t)
	defer unix.Close(toA)
	defer unix.Close(toB)
	for _, fd := range []int{toA, toB} {
		if _, err := unix.Write(fd, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	err := run(t, ns, func(l *Loop) error {
		first := true
		handler := func(me, other int) ready {
			return func(uint32) {
				if !first {
					t.Errorf("the event of the closed descriptor %d is told", me)
					return
				}
				first = false
				if err := l.Close(other); err != nil {
					t.Error(err)
				}
				again, silent := pair(t)
				if again != other {
					if silent != other {
						t.Errorf("the number %d is not given again: %d, %d", other, again, silent)
					}
					again, silent = silent, again
				}
				t.Cleanup(func() { unix.Close(silent) })
				if err := l.Add(again, unix.EPOLLIN, ready(func(uint32) { t.Error("told to the successor") })); err != nil {
					t.Error(err)
				}
				l.Set(&Timer{Func: func() { l.End(nil) }}, time.Now().Add(time.Millisecond))
			}
		}
		if err := l.Add(a, unix.EPOLLIN, handler(a, b)); err != nil {
			return err
		}
		return l.Add(b, unix.EPOLLIN, handler(b, a))
	})
	if err != nil {
		t.Error(err)
	}
}

// Descriptors that pass a byte round: what one wakeup costs.
func BenchmarkPass(b *testing.B) {
	ns := node(b)
	here, there := pair(b)
	n := 0
	buf := make([]byte, 1)
	err := run(b, ns, func(l *Loop) error {
		pass := func(fd int) ready {
			return func(uint32) {
				if _, err := unix.Read(fd, buf); err != nil {
					l.End(err)
					return
				}
				if n++; n >= b.N {
					l.End(io.EOF)
					return
				}
				unix.Write(fd, buf)
			}
		}
		if err := l.Add(here, unix.EPOLLIN, pass(here)); err != nil {
			return err
		}
		if err := l.Add(there, unix.EPOLLIN, pass(there)); err != nil {
			return err
		}
		_, err := unix.Write(here, buf)
		return err
	})
	if !errors.Is(err, io.EOF) {
		b.Error(err)
	}
}
