package prompt

import "runtime"

// MakeWay lets the Go runtime run more threads at a time than there are processors.
//
// A loop of the wire engine that has work keeps its processor of the runtime and never says that it is
// in a system call. With two loops at work on a machine of two processors nothing
// else of the program had one: flows, timers and the garbage collector got it every
// 10 ms, when the runtime takes it from a loop by a signal, and then the loop
// waited for it. That was 12% of a bulk flow's throughput, and acknowledgements 11 ms late in
// an otherwise idle link. A thread that samples sockets each ms, too, comes back from its sleep to
// a runtime that must have room for it. The kernel shares out the real processors.
//
// The number only ever rises, so that engines need not know of one another; it is the
// same for any number of links, since those whose loops sleep keep nothing.
func MakeWay() {
	want := waysPerCPU * runtime.NumCPU()
	if runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want) // stops the world for some 50 µs, once
	}
}

// waysPerCPU is for a loop that works, one that is about to, and all else.
const waysPerCPU = 3
