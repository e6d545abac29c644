package cli

import (
	"bufio"
	"net"
	"strconv"
	"strings"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// defaultPort is where a controller listens.
const defaultPort = "7443"

// checkAddress wants host:port.
func checkAddress(flag, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" {
		return usageError("%s %q: want host:port, such as lab1.example:%s", flag, address, defaultPort)
	}
	return nil
}

// readLine reads one line of standard input.
func (a *app) readLine() (string, error) {
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if line = strings.TrimSpace(line); line != "" {
		return line, nil
	}
	return "", err
}

// roleWord is a role as people write it.
func roleWord(role tcplabv1.Role) string { return enumWord(role, "ROLE_") }

// parseRole reads it.
func parseRole(word string) (tcplabv1.Role, error) {
	role, ok := tcplabv1.Role_value["ROLE_"+strings.ToUpper(word)]
	if !ok || role == 0 {
		return 0, usageError("--role %q: want viewer, operator or admin", word)
	}
	return tcplabv1.Role(role), nil
}
