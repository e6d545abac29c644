package virtual

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// The guest's consoles, in the order of uml.Machine's Outputs and Input.
const (
	bellConsole = "/dev/tty1" // rings the host
	askConsole  = "/dev/tty2" // on which the host asks
)

// report is the guest's side of the file of events. It is safe for concurrent use.
type report struct {
	mu   sync.Mutex
	file *os.File
	bell *os.File
}

func openReport(dir string) (*report, error) {
	file, err := os.OpenFile(filepath.Join(dir, eventsFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("open the file of events: %w", err)
	}
	bell, err := os.OpenFile(bellConsole, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the console: %w", err), file.Close())
	}
	return &report{file: file, bell: bell}, nil
}

// tell appends an event and has the host see it.
func (r *report) tell(e *tcplabv1.GuestEvent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Clock = durationpb.New(clock())
	content, err := appendEvent(nil, e)
	if err != nil {
		return fmt.Errorf("report an event: %w", err)
	}
	if _, err := r.file.Write(content); err != nil {
		return fmt.Errorf("report an event: %w", err)
	}
	// What a guest writes to a host's file waits in its own memory otherwise. The host's disk is no
	// matter: a host that loses its power has lost the guest too.
	const now = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if err := unix.SyncFileRange(int(r.file.Fd()), 0, 0, now); err != nil {
		return fmt.Errorf("report an event: %w", err)
	}
	if _, err := r.bell.WriteString("\n"); err != nil {
		return fmt.Errorf("report an event: %w", err)
	}
	return nil
}

// clock is the kernel's time since it started.
func clock() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// answer tells what the guest does, whenever it is asked, and ends with the guest. Whoever spins, it runs: its
// thread comes before all others.
func answer(to *report) {
	runtime.LockOSThread()
	console, err := unix.Open(askConsole, unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tcplab: the guest cannot be asked:", err)
		return
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1, Size: unix.SizeofSchedAttr}, 0); err != nil {
		fmt.Fprintln(os.Stderr, "tcplab: the guest is asked in vain while a program spins:", err)
	}
	question := make([]byte, 64)
	for {
		n, err := unix.Read(console, question)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			return
		}
		if err := to.tell(&tcplabv1.GuestEvent{Event: &tcplabv1.GuestEvent_Alive{Alive: &tcplabv1.GuestAlive{Running: running()}}}); err != nil {
			fmt.Fprintln(os.Stderr, "tcplab:", err)
			return
		}
	}
}

// running is the programs that run or want to, by name and process ID; tcplab among them where another
// thread than this one does.
func running() []string {
	var all []string
	stats, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		thread, state, ok := parseStat(string(content))
		parts := strings.Split(path, "/")
		pid := parts[2]
		if !ok || state != 'R' || thread == unix.Gettid() {
			continue
		}
		name, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		arguments, argumentsErr := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		if errors.Join(err, argumentsErr) != nil || len(arguments) == 0 { // a thread of the kernel's
			continue
		}
		text := fmt.Sprintf("%s (%s)", strings.TrimSpace(string(name)), pid)
		if pid == "1" {
			text = "tcplab itself"
		}
		if len(all) == 0 || all[len(all)-1] != text {
			all = append(all, text)
		}
	}
	return all
}

// parseStat reads the ID and the state of a thread (proc_pid_stat(5)); a name may hold anything, so
// that what counts stands behind the last parenthesis.
func parseStat(text string) (id int, state byte, ok bool) {
	before, _, _ := strings.Cut(text, " ")
	id, err := strconv.Atoi(before)
	at := strings.LastIndex(text, ") ")
	if err != nil || at < 0 || at+2 >= len(text) {
		return 0, 0, false
	}
	return id, text[at+2], true
}
