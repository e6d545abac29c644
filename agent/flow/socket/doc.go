// Package socket makes the TCP sockets of flows: in a node's namespace, with the lab's
// options set and read back, and ended in order. There are two ways to use one:
//
//   - [Socket] blocks: one goroutine makes the calls that wait, and a context ends
//     them (Guard). It is for flows of one connection, where what is measured is then TCP and
//     not Go's poller.
//   - [FD] is a bare descriptor, for a loop (package flow/loop) with many of them: made
//     by [Spec.Open] on a thread that is in the namespace, with SOCK_NONBLOCK.
//
// The package refuses to leave a connection behind. Every socket has SO_LINGER{1,0}
// from its birth, so that the kernel resets the connection when the descriptor is
// closed, by death too; an orphan that goes on sending would hold its network namespace
// for minutes. Who wants an orderly end shuts down its writing, reads the peer's FIN, and closes once
// the connection has no state any more but TIME_WAIT ([FD.HasEnded]); [Socket.Finish] does all
// that with a deadline. A loop needs no polling for it: the last ACK is an edge
// with EPOLLHUP.
//
// It refuses to set an option by half: a buffer or a congestion control that the kernel
// would not grant is an error that says so.
package socket
