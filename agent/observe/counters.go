package observe

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Counters are a namespace's kernel counters by name, as nstat names them:
// group and name together ("TcpActiveOpens", "TcpExtDelayedACKs",
// "IpInReceives", "Ip6InReceives"). Socket counts have "Sockstat" before them
// ("SockstatTCPInuse", "SockstatTCPTw", "SockstatTCP6Inuse").
type Counters map[string]int64

// Delta is what was counted between before and after. A counter that appeared
// in between started at 0. A gauge, such as TcpCurrEstab, has no difference that
// means anything: its value is the one after.
func Delta(before, after Counters) Counters {
	delta := make(Counters, len(after))
	for name, value := range after {
		if gauge(name) {
			delta[name] = value
		} else {
			delta[name] = value - before[name]
		}
	}
	return delta
}

// gauge says whether the name is of a state or a setting. All others of
// /proc/net/snmp count events (RFC 1213, RFC 2012).
func gauge(name string) bool {
	switch name {
	case "IpForwarding", "IpDefaultTTL", "TcpRtoAlgorithm", "TcpRtoMin", "TcpRtoMax", "TcpMaxConn", "TcpCurrEstab":
		return true
	}
	return strings.HasPrefix(name, "Sockstat")
}

// longestLine bounds a line of /proc; TcpExt's names take 3 KB.
const longestLine = 1 << 20

// lines calls read with the fields of each line that is not empty.
func lines(r io.Reader, read func(fields []string) error) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, longestLine)
	for n := 1; scanner.Scan(); n++ {
		fields := strings.Fields(scanner.Text())
		if len(fields) == 0 {
			continue
		}
		if err := read(fields); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return scanner.Err()
}

// parseTable reads /proc/net/snmp and /proc/net/netstat: for each group a line
// of names and a line of values, both starting with "Group:".
func (c Counters) parseTable(r io.Reader) error {
	var names []string
	err := lines(r, func(fields []string) error {
		if names == nil {
			if !strings.HasSuffix(fields[0], ":") {
				return fmt.Errorf("%q is not the name of a group", fields[0])
			}
			names = fields
			return nil
		}
		if fields[0] != names[0] || len(fields) != len(names) {
			return fmt.Errorf("%s has %d names and %d values of %s", names[0], len(names)-1, len(fields)-1, fields[0])
		}
		group := strings.TrimSuffix(names[0], ":")
		for i, field := range fields[1:] {
			if err := c.set(group+names[i+1], field); err != nil {
				return err
			}
		}
		names = nil
		return nil
	})
	if err == nil && names != nil {
		err = fmt.Errorf("%s has names and no values", names[0])
	}
	return err
}

// parseList reads /proc/net/snmp6: a name and a value on each line.
func (c Counters) parseList(r io.Reader) error {
	return lines(r, func(fields []string) error {
		if len(fields) != 2 {
			return fmt.Errorf("%d fields, not a name and a value", len(fields))
		}
		return c.set(fields[0], fields[1])
	})
}

// parseSockstat reads /proc/net/sockstat and sockstat6: "TCP: inuse 1 orphan 0
// tw 0". It keeps what the kernel counts per namespace; orphan, alloc and mem
// are the whole machine's (net/ipv4/proc.c, sockstat_seq_show).
func (c Counters) parseSockstat(r io.Reader) error {
	return lines(r, func(fields []string) error {
		if !strings.HasSuffix(fields[0], ":") || len(fields)%2 != 1 {
			return fmt.Errorf("%q with %d fields is not a group of names and values", fields[0], len(fields))
		}
		group := strings.TrimSuffix(fields[0], ":")
		for i := 1; i < len(fields); i += 2 {
			switch name := fields[i]; name {
			case "inuse", "tw":
				if err := c.set("Sockstat"+group+strings.ToUpper(name[:1])+name[1:], fields[i+1]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (c Counters) set(name, value string) error {
	number, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		// A 64-bit counter past half its range is not met in a lab, but no
		// reason to fail one: differences are right modulo 2^64.
		unsigned, unsignedErr := strconv.ParseUint(value, 10, 64)
		if unsignedErr != nil {
			return fmt.Errorf("%s: %q is not a count", name, value)
		}
		number = int64(unsigned)
	}
	c[name] = number
	return nil
}
