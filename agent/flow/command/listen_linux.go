package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/tcplab/tcplab/internal/netns"
)

// A port is looked for ever more rarely: nothing tells when a socket begins to listen.
const (
	firstLook = time.Millisecond
	lastLook  = 20 * time.Millisecond
)

// awaitPort waits until somebody listens on the port, and reports whether that came before the
// end of ctx.
func awaitPort(ctx context.Context, node *netns.Handle, port uint32) bool {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if found, err := listened(node, port); found && err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// listened reports whether a TCP socket of the node listens on the port.
func listened(node *netns.Handle, port uint32) (bool, error) {
	found := false
	err := node.Do(func() error {
		for _, table := range []string{"tcp", "tcp6"} {
			// /proc/net would be the main thread's.
			content, err := os.ReadFile("/proc/thread-self/net/" + table)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a kernel without IPv6
			}
			if err != nil {
				return err
			}
			found = found || listens(content, port)
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("list the sockets of %s: %w", node.Name(), err)
	}
	return found, nil
}
