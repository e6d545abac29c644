package connect

import (
	"time"

	"github.com/tcplab/tcplab/agent/flow/loop"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// end is one end of the flow: what its connections share and count. It belongs to the loop's
// thread until the loop has ended.
type end struct {
	plan  *plan
	spec  socket.Spec
	loop  *loop.Loop
	asks  bool   // the client
	first bool   // this end ends connections
	abort bool   // they end with a reset
	zeros []byte // what is sent, and where to discard to: never written

	open          int // connections that have a descriptor
	written, read uint64
	lastRead      time.Time
	completed     uint64
	disorderly    uint64
	errors        *tcplabv1.ConnectionErrors
	firstErr      error
	inForce       *tcplabv1.SocketOptions // of the first connection, read back
	congestion    string

	// What the owner is told.
	stood    func(*conn) // the handshake is over
	answered func(*conn) // a reply has come
	served   func(*conn) // the last exchange is over
	freed    func()      // a connection's work is done: it counts no more for the concurrency
	idle     func()      // no connection is left
}

// scratchSize is what one system call reads or writes at most.
const scratchSize = 256 << 10

func newEnd(p *plan, spec socket.Spec) end {
	return end{
		plan: p, spec: spec, asks: spec.Role == socket.Client, first: p.clientFirst == (spec.Role == socket.Client), abort: p.abort,
		zeros: make([]byte, min(scratchSize, max(p.request, p.reply)+1)), errors: &tcplabv1.ConnectionErrors{},
		stood: func(*conn) {}, answered: func(*conn) {}, served: func(*conn) {}, freed: func() {},
	}
}

// failed counts a connection that failed.
func (e *end) failed(err error) {
	count(e.errors, err)
	if e.firstErr == nil {
		e.firstErr = err
	}
}

// readBack reads the options of the first connection that stands.
func (e *end) readBack(c *conn) {
	if e.inForce == nil {
		e.inForce, e.congestion = c.fd.ReadOptions(&e.spec), c.fd.Congestion()
	}
}

// report is the end as the contract sends it.
func (e *end) report() *tcplabv1.FlowEnd {
	return &tcplabv1.FlowEnd{Node: e.spec.Node, BytesWritten: e.written, BytesRead: e.read, Congestion: e.congestion, Socket: e.inForce}
}
