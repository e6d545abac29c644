// Package wire is the engine that carries a link's frames itself: for kernels
// without sch_netem, and for all who want to read in a few hundred lines what
// a link does.
//
// Each end of a link is a port, an interface in a node whose other side this
// process holds: a TAP, or a veth into a namespace of the engine's own where
// packet sockets take and give its frames. At each port a loop on a thread of its own
// reads frames where they leave the sender's stack and hands them to the loop at the
// other port, which keeps each until its time has come and writes it into the
// receiver's stack.
//
// When that time comes is decided by a model without a kernel in it, the
// direction, whose paths each do to their frames what their shape says: lost?, duplicated?,
// corrupted?, delayed, held in the queue of the bottleneck, sent at its rate or when its trace
// lets it. It computes in virtual time, from the arrival of each frame
// and never from the moment at which the loop happened to run; so a loop that
// wakes late is late for those frames and not for all that follow. Every path has
// random generators of its own, seeded by the direction: the same seed does the same to
// the same frames, whatever travels beside them.
//
// The package refuses what it cannot keep: the queue disciplines of the kernel beyond
// fifo, head-drop and CoDel, a bottleneck without a queue or with one that holds no
// frame, a frame longer than its port's MTU allows, and silence about a frame that it
// lost itself ([link.Counters].Failed).
package wire
