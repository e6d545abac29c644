// Package flow carries out the traffic of a lab: one connection of real TCP
// between two nodes, measured at both ends. Each kind of flow is a file, its
// client's side beside its server's.
//
// The two ends share nothing that a network would not carry: the server learns
// from the specification what to expect, and the client learns the server's
// port.
//
// Sockets are blocking descriptors and each end's calls block a thread, because
// what is measured is then TCP and not Go's poller: a wakeup takes the scheduler
// of the kernel alone. Whoever wants a call to end shuts the socket down, which wakes it.
//
// The package refuses to leave a socket behind. Every socket has SO_LINGER{1,0}
// from its birth, so that the kernel resets the connection of a process that
// was killed; an orphan that goes on sending would hold its network namespace
// for minutes. It refuses to set an option by half: a buffer or a congestion
// control that the kernel would not grant is an error that says so.
package flow
