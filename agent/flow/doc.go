// Package flow carries out the traffic of a lab: one connection of real TCP
// between two nodes, or a few side by side, measured at both ends. Each kind of flow is a file, its
// client's side beside its server's.
//
// The two ends share nothing that a network would not carry: the server learns
// from the specification what to expect, and the client learns the server's
// port.
//
// Sockets (package socket) are blocking descriptors and each end's calls block a thread, because
// what is measured is then TCP and not Go's poller: a wakeup takes the scheduler
// of the kernel alone. Whoever wants a call to end shuts the socket down, which wakes it. Kinds of many
// connections have packages of their own below this one, and an event loop each end (package loop).
//
// The package refuses to leave a socket behind, however it ends.
package flow
