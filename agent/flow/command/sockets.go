package command

import (
	"strconv"
	"strings"
)

// listenState is TCP_LISTEN (include/net/tcp_states.h) as /proc/net/tcp writes it.
const listenState = "0A"

// listens reports whether a table of TCP sockets has one that listens on the port. The table is
// the kernel's /proc/net/tcp or tcp6 (get_tcp4_sock in net/ipv4/tcp_ipv4.c): after a
// number each line has the local address, a colon and the port in hexadecimal, the remote
// ones and the state.
func listens(table []byte, port uint32) bool {
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[3] != listenState {
			continue
		}
		_, local, ok := strings.Cut(fields[1], ":")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(local, 16, 16); err == nil && uint32(n) == port {
			return true
		}
	}
	return false
}
