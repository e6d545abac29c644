package observe

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	table, list, sockstat := Counters.parseTable, Counters.parseList, Counters.parseSockstat
	for name, test := range map[string]struct {
		parse func(Counters, io.Reader) error
		text  string
		want  Counters // nil: an error
	}{
		"snmp":               {table, "Ip: Forwarding InReceives\nIp: 2 30796\nTcp: MaxConn ActiveOpens\nTcp: -1 7\n", Counters{"IpForwarding": 2, "IpInReceives": 30796, "TcpMaxConn": -1, "TcpActiveOpens": 7}},
		"netstat":            {table, "TcpExt: TW DelayedACKs\nTcpExt: 3 18446744073709551615\n", Counters{"TcpExtTW": 3, "TcpExtDelayedACKs": -1}},
		"empty group":        {table, "IcmpMsg:\nIcmpMsg:\n", Counters{}},
		"nothing":            {table, "", Counters{}},
		"no values":          {table, "Ip: Forwarding\n", nil},
		"too few values":     {table, "Ip: Forwarding InReceives\nIp: 2\n", nil},
		"another group":      {table, "Ip: Forwarding\nTcp: 2\n", nil},
		"no group":           {table, "Forwarding\n2\n", nil},
		"no number":          {table, "Ip: Forwarding\nIp: two\n", nil},
		"snmp6":              {list, "Ip6InReceives                   \t12\nUdp6InErrors 0\n", Counters{"Ip6InReceives": 12, "Udp6InErrors": 0}},
		"snmp6 without name": {list, "12\n", nil},
		"snmp6 no number":    {list, "Ip6InReceives x\n", nil},
		"sockstat":           {sockstat, "sockets: used 16\nTCP: inuse 1 orphan 4 tw 2 alloc 3 mem 6651\nUDP: inuse 5 mem 0\nFRAG: inuse 0 memory 0\n", Counters{"SockstatTCPInuse": 1, "SockstatTCPTw": 2, "SockstatUDPInuse": 5, "SockstatFRAGInuse": 0}},
		"sockstat6":          {sockstat, "TCP6: inuse 3\n", Counters{"SockstatTCP6Inuse": 3}},
		"sockstat odd":       {sockstat, "TCP: inuse\n", nil},
		"sockstat no group":  {sockstat, "TCP inuse 3\n", nil},
		"sockstat no number": {sockstat, "TCP: inuse many\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := Counters{}
			err := test.parse(got, strings.NewReader(test.text))
			if (err != nil) != (test.want == nil) {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(test.want, got); err == nil && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDelta(t *testing.T) {
	before := Counters{"TcpActiveOpens": 3, "TcpCurrEstab": 5, "SockstatTCPTw": 9, "IpDefaultTTL": 64, "Gone": 1}
	after := Counters{"TcpActiveOpens": 10, "TcpCurrEstab": 2, "SockstatTCPTw": 1, "IpDefaultTTL": 64, "IcmpMsgInType3": 4, "TcpOutRsts": 0}
	want := Counters{"TcpActiveOpens": 7, "TcpCurrEstab": 2, "SockstatTCPTw": 1, "IpDefaultTTL": 64, "IcmpMsgInType3": 4, "TcpOutRsts": 0}
	if diff := cmp.Diff(want, Delta(before, after)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzCounters(f *testing.F) {
	f.Add([]byte("Ip: Forwarding InReceives\nIp: 2 30796\n"))
	f.Add([]byte("Ip6InReceives 12\n"))
	f.Add([]byte("TCP: inuse 1 orphan 4 tw 2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, parse := range map[string]func(Counters, io.Reader) error{
			"table": Counters.parseTable, "list": Counters.parseList, "sockstat": Counters.parseSockstat,
		} {
			c := Counters{}
			if err := parse(c, bytes.NewReader(text)); err != nil {
				continue
			}
			// What is accepted has a number for each name: as many counters at most as
			// there are fields.
			if fields := len(bytes.Fields(text)); len(c) > fields {
				t.Errorf("%s: %d counters of %d fields", name, len(c), fields)
			}
		}
	})
}
