//go:build !linux

package access

import (
	"errors"
	"net"
)

// ownPeer refuses: who the peer is cannot be known here.
func ownPeer(*net.UnixConn) error {
	return errors.New("the controller's socket is served on Linux only")
}
