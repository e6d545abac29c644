// Package tunnel carries gRPC between a controller and an agent, whichever of them dials: two TLS
// connections, one for commands and one for results, on both of which the agent serves. HTTP/2 is the only
// multiplexer; commands never wait behind results because these have a connection of their own.
//
// Before gRPC begins the two say which version of the contract they speak, and the agent which start of it and which
// session this is, so that of two sessions the older is known.
//
// It refuses a contract more than one minor version away, and waits for nobody: what
// does not answer is given up within [DeadWithin].
package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Protocol is the name (ALPN) of a tunnel's connections.
const Protocol = "tcplab-agent/1"

// The version of the contract that this tcplab speaks (TunnelHello). The minor version counts up with each
// release that adds to the contract.
const (
	ContractMajor = 1
	ContractMinor = 0
)

// greetWithin bounds the greeting of a connection.
const greetWithin = 5 * time.Second

// maxGreeting bounds a greeting in bytes; both are far below it.
const maxGreeting = 16 << 10

// Skew refuses a contract that is too far from this one's. The name is that of the other program.
func Skew(name, version string, major, minor uint32) error {
	switch {
	case major == ContractMajor && minor+1 >= ContractMinor && minor <= ContractMinor+1:
		return nil
	case major < ContractMajor || major == ContractMajor && minor < ContractMinor:
		return rpcerr.New(codes.FailedPrecondition, rpcerr.VersionSkew, "upgrade "+name,
			"%s (tcplab %s) speaks version %d.%d of the contract, and this side %d.%d: one minor version of difference is served", name, version, major, minor, ContractMajor, ContractMinor)
	default:
		return rpcerr.New(codes.FailedPrecondition, rpcerr.VersionSkew, "upgrade this side first, or "+name+" later",
			"%s (tcplab %s) speaks version %d.%d of the contract, and this side %d.%d: one minor version of difference is served", name, version, major, minor, ContractMajor, ContractMinor)
	}
}

// Greet is the agent's part of the greeting.
func Greet(conn net.Conn, hello *tcplabv1.TunnelHello) (*tcplabv1.TunnelWelcome, error) {
	hello.ContractMajor, hello.ContractMinor = ContractMajor, ContractMinor
	return greet(conn, hello)
}

func greet(conn net.Conn, hello *tcplabv1.TunnelHello) (*tcplabv1.TunnelWelcome, error) {
	if err := conn.SetDeadline(time.Now().Add(greetWithin)); err != nil {
		return nil, err
	}
	if err := write(conn, hello); err != nil {
		return nil, fmt.Errorf("greet the controller: %w", err)
	}
	welcome := &tcplabv1.TunnelWelcome{}
	if err := read(conn, welcome); err != nil {
		return nil, fmt.Errorf("read the controller's greeting: %w", err)
	}
	if len(welcome.GetRefusal()) > 0 {
		refusal := &spb.Status{}
		if err := proto.Unmarshal(welcome.GetRefusal(), refusal); err != nil {
			return nil, fmt.Errorf("read the controller's refusal: %w", err)
		}
		return nil, &Refusal{Reason: rpcerr.From(status.ErrorProto(refusal))}
	}
	return welcome, conn.SetDeadline(time.Time{})
}

// Refusal is a controller's reason not to have an agent.
type Refusal struct{ Reason *rpcerr.Error }

// Error is the reason in words.
func (r *Refusal) Error() string { return r.Reason.Error() }

// Unwrap is the reason.
func (r *Refusal) Unwrap() error { return r.Reason }

// Hear is the controller's first part of the greeting: it reads who wants what.
func Hear(conn net.Conn) (*tcplabv1.TunnelHello, error) {
	if err := conn.SetDeadline(time.Now().Add(greetWithin)); err != nil {
		return nil, err
	}
	hello := &tcplabv1.TunnelHello{}
	if err := read(conn, hello); err != nil {
		return nil, fmt.Errorf("read an agent's greeting: %w", err)
	}
	return hello, nil
}

// Welcome is the controller's second part; after it gRPC is spoken.
func Welcome(conn net.Conn, welcome *tcplabv1.TunnelWelcome) error {
	if err := write(conn, welcome); err != nil {
		return fmt.Errorf("greet an agent: %w", err)
	}
	return conn.SetDeadline(time.Time{})
}

// Refuse tells an agent why it is not served, and hangs up.
func Refuse(conn net.Conn, why error) error {
	blob, err := proto.Marshal(rpcerr.From(why).GRPCStatus().Proto())
	if err == nil {
		err = write(conn, &tcplabv1.TunnelWelcome{Refusal: blob})
	}
	return errors.Join(err, conn.Close())
}

func write(w io.Writer, m proto.Message) error {
	framed, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4), m)
	if err != nil {
		return err
	}
	if len(framed)-4 > maxGreeting {
		return fmt.Errorf("a greeting of %d bytes is too long", len(framed)-4)
	}
	binary.BigEndian.PutUint32(framed, uint32(len(framed)-4))
	_, err = w.Write(framed)
	return err
}

func read(r io.Reader, m proto.Message) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxGreeting {
		return fmt.Errorf("a greeting of %d bytes is too long", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return proto.Unmarshal(body, m)
}
