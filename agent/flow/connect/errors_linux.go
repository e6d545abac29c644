package connect

import (
	"errors"
	"syscall"

	"github.com/tcplab/tcplab/agent/flow"
	"github.com/tcplab/tcplab/agent/flow/socket"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// count counts a failed connection by what failed it.
func count(e *tcplabv1.ConnectionErrors, err error) {
	e.Total++
	switch {
	case errors.Is(err, flow.ErrEnded):
		e.EndedEarly++
		return
	case errors.Is(err, socket.ErrTooMuch):
		e.TooMuch++
		return
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		e.Other++
		return
	}
	switch errno {
	case syscall.ECONNREFUSED:
		e.Refused++
	case syscall.ECONNRESET, syscall.EPIPE:
		e.Reset_++
	case syscall.ETIMEDOUT:
		e.TimedOut++
	case syscall.EADDRNOTAVAIL:
		e.AddressNotAvailable++
	case syscall.EADDRINUSE:
		e.AddressInUse++
	case syscall.ENETUNREACH, syscall.ENETDOWN:
		e.NetworkUnreachable++
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN:
		e.HostUnreachable++
	case syscall.EMFILE, syscall.ENFILE:
		e.TooManyFiles++
	default:
		e.Other++
	}
}
