// Package virtual runs trials in virtual time: each in a guest kernel of its own, user-mode Linux
// with time-travel, whose clock stands still while a program runs and jumps while all wait. TCP and
// netem are the kernel's own; the host's noise does not exist for them, and waiting costs nothing.
//
// To a controller it is an agent like any other. A guest gets one trial's request by a file, runs the
// same agent as any host does (package agent, in tcplab's own binary, which is the guest's init),
// appends what happens to a file that is followed here, leaves the sealed result, and powers off.
// Planning, storage, leases and deadlines stay outside, on the real clock.
//
// It refuses what needs a host or somebody at a keyboard: links at a host's own interfaces, the wire
// engine, programs in a standing node, changes of a link by hand. A guest sees the host's files read-only
// and writes to its own folder alone; it has a memory and a time limit, and dies with this process in
// whatever way that ends.
package virtual
