package uml

import (
	"golang.org/x/sys/unix"
)

// guestNice is the guest's priority where the caller may give it: other work on
// the machine then waits for the guest rather than the guest for it, so that
// its clock means something. An idle guest sleeps.
const guestNice = -10

// place has what the calling thread starts run on one processor, and before other
// programs; what it returns puts the thread back. A guest has one processor,
// but its kernel and its programs are several processes, which hand over to
// one another at each system call: on one processor that is a switch, on two it
// wakes the other one up. A round trip between two namespaces of a guest became
// a millisecond shorter by it.
//
// Where the host refuses, the guest is slower and nothing else. Which processor is the caller's choice,
// counted among those that it may use, or else the last.
func place(choice *int) (back func()) {
	var before, one unix.CPUSet
	if unix.SchedGetaffinity(0, &before) != nil {
		return func() {}
	}
	var usable []int
	for cpu := range len(before) * 64 {
		if before.IsSet(cpu) {
			usable = append(usable, cpu)
		}
	}
	if len(usable) == 0 {
		return func() {}
	}
	// The last: processor 0 often has the interrupts.
	at := len(usable) - 1
	if choice != nil {
		at = *choice % len(usable)
	}
	one.Set(usable[at])
	pinned := unix.SchedSetaffinity(0, &one) == nil
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	// The system call returns 20 - nice (getpriority(2)).
	nice = 20 - nice
	hurried := err == nil && unix.Setpriority(unix.PRIO_PROCESS, 0, guestNice) == nil
	return func() {
		if hurried {
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
		}
		if pinned {
			_ = unix.SchedSetaffinity(0, &before)
		}
	}
}
