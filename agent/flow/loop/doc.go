// Package loop serves many sockets of one node from one thread: callbacks for
// descriptors that are ready and for timers that are due (epoll and a timerfd). It is for flows
// of many connections, where a thread each would measure the scheduler; a flow of one
// connection blocks instead (package flow/socket).
//
// [Run] locks a thread, enters the node's network namespace once, so that
// sockets made in callbacks are the node's, and returns when the loop has ended:
//
//	err := loop.Run(ctx, node, func(l *loop.Loop) error {
//		fd, err := spec.Open(0, unix.SOCK_NONBLOCK) // socket.Spec
//		if err != nil {
//			return err
//		}
//		c := &conn{loop: l, fd: fd}
//		c.patience.Func = func() { l.End(errSlow) }
//		l.Set(&c.patience, time.Now().Add(time.Second))
//		return l.Add(int(fd), unix.EPOLLIN|unix.EPOLLOUT, c) // calls c.Ready
//	})
//
// Its terms:
//   - Readiness comes by edge (EPOLLET): Ready is called once for each change, so a
//     handler reads, writes or accepts until EAGAIN, or asks with Rearm to be called
//     again. A descriptor that is ready when it is added is told so.
//   - Descriptors must be non-blocking, and belong to the loop once added: Close, or the
//     loop's end, closes them. What must end in order does so before.
//   - A connection may carry its Timer in itself; setting, moving and stopping one
//     costs a step in a heap and no system call. Timers are never early.
//   - Callbacks run one at a time and must not wait. Every method is for callbacks alone, except
//     Post, which is for all the others.
//   - The loop ends when its context does, with the context's cause, or at End.
//
// It refuses to own a connection's life: which state one is in is its handler's
// business.
package loop
