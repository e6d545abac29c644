package trace

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// opening is the handshake at the client of a way of 10 ms.
const opening = `
	0  > S
	20 < SA
	20 > A
`

// openingAtServer is the same at the server.
const openingAtServer = `
	10 > S
	10 < SA
	30 > A
`

// Each talk beside what it is read as.
func TestReading(t *testing.T) {
	for name, test := range map[string]struct {
		at    talker
		lines string
		want  string
	}{
		"a request, its answer and an orderly end": {
			lines: opening + `
				20 > PA 0+100
				41 < A  ack=100
				41 < PA 0+500 ack=100
				41 > A  100+0 ack=500
				41 > FA 100+0 ack=500
				61 < FA 500+0 ack=101
				61 > A  101+0 ack=501`,
			want: `client: segments 6 data 1 bytes 100 pure 3 fins 1 first-fins 1
				server: segments 4 data 1 bytes 500 pure 1 fins 1`,
		},
		"the answer acknowledges the request": {
			lines: opening + `
				20 > PA 0+100
				41 < PA 0+500 ack=100
				42 > PA 100+100 ack=500
				63 < PA 500+500 ack=200`,
			want: `client: segments 4 data 2 bytes 200 pure 1 piggybacked 1
				server: segments 3 data 2 bytes 1000 piggybacked 2`,
		},
		"a lost segment is sent again after three duplicate acknowledgements": {
			lines: opening + `
				20 > A 0+1460
				20 > A 1460+1460
				20 > A 2920+1460
				20 > A 4380+1460
				20 > A 5840+1460
				40 < A ack=1460
				40.1 < A ack=1460 sack=2920-4380
				40.2 < A ack=1460 sack=2920-5840
				40.3 < A ack=1460 sack=2920-7300
				40.3 > A 1460+1460
				60.4 < A ack=7300`,
			want: `client: segments 8 data 6 bytes 8760 again 1460 retransmissions 1 fast 1 pure 1
				server: segments 6 duplicate-acks 3 pure 5`,
		},
		"without selective acknowledgements it takes three": {
			lines: opening + `
				20 > A 0+1460
				20 > A 1460+1460
				40.1 < A ack=0
				40.1 < A ack=0
				40.2 > A 0+1460
				40.2 < A ack=0
				40.3 > A 0+1460`,
			want: `client: segments 6 data 4 bytes 5840 again 2920 retransmissions 2 fast 1 pure 1
				server: segments 4 duplicate-acks 3 pure 3`,
		},
		"the same at the server, where it is missing": {
			at: talker{server: true},
			lines: openingAtServer + `
				30 > A 0+1460
				30 < A ack=1460
				30.1 > A 2920+1460 id=6
				30.1 < A ack=1460 sack=2920-4380
				30.2 > A 4380+1460
				30.2 < A ack=1460 sack=2920-5840
				30.3 > A 5840+1460
				30.3 < A ack=1460 sack=2920-7300
				50.3 > A 1460+1460
				50.3 < A ack=7300`,
			want: `client: segments 7 data 5 bytes 7300 again 1460 retransmissions 1 fast 1 pure 1
				server: segments 6 duplicate-acks 3 pure 5`,
		},
		"a timeout, and what is sent again after it": {
			lines: opening + `
				20 > A 0+1460
				20 > A 1460+1460
				20 > A 2920+1460
				240 > A 0+1460
				260 < A ack=1460
				260 > A 1460+1460
				260 > A 2920+1460
				280 < A ack=4380`,
			want: `client: segments 8 data 6 bytes 8760 again 4380 retransmissions 3 timeout 3 pure 1
				server: segments 3 pure 2`,
		},
		"a probe of the tail is no timeout": {
			lines: opening + `
				20 > A 0+1460
				20 > A 1460+100
				300 > A 1460+100
				320 < A ack=0 sack=1460-1560
				320 > A 0+1460`,
			want: `client: segments 6 data 4 bytes 3120 again 1560 retransmissions 2 fast 1 pure 1
				server: segments 2 duplicate-acks 1 pure 1`,
		},
		"a round trip above any timeout": {
			lines: `0 > S
				500 < SA
				500 > A
				500 > A 0+1460
				500 > A 1460+1460
				1000 < A ack=0 sack=1460-2920
				1001 > A 0+1460`,
			want: `client: segments 5 data 3 bytes 4380 again 1460 retransmissions 1 fast 1 pure 1
				server: segments 2 duplicate-acks 1 pure 1`,
		},
		"overtaken on the way": {
			at: talker{server: true},
			lines: openingAtServer + `
				30 > A 1460+1460 id=4
				30 < A ack=0 sack=1460-2920
				31 > A 0+1460 old=3
				31 < A ack=2920`,
			want: `client: segments 4 data 2 bytes 2920 out-of-order 1 pure 1
				server: segments 3 duplicate-acks 1 pure 2`,
		},
		"overtaken on the way, over IPv6": {
			at: talker{server: true, v6: true},
			lines: openingAtServer + `
				30 > A 1460+1460
				30 < A ack=0 sack=1460-2920
				31 > A 0+1460
				31 < A ack=2920
				40 > A 4380+1460
				60.1 > A 2920+1460`,
			want: `client: segments 6 data 4 bytes 5840 again 1460 retransmissions 1 out-of-order 1 pure 1
				server: segments 3 duplicate-acks 1 pure 2`,
		},
		"overtaken on the way, by their timestamps": {
			at: talker{server: true, v6: true},
			lines: `10 > S ts=1
				10 < SA ts=1
				30 > A ts=2
				40 > A 1460+1448 ts=5
				80 > A 0+1460 ts=4`,
			want: `client: segments 4 data 2 bytes 2908 out-of-order 1 pure 1
				server: segments 1`,
		},
		"sent once, and there twice": {
			at: talker{server: true},
			lines: openingAtServer + `
				30 > A 0+100 id=7
				30 > A 0+100 id=7
				31 < A ack=100`,
			want: `client: segments 4 data 2 bytes 200 duplicates 1 pure 1
				server: segments 2 pure 1`,
		},
		"Nagle's algorithm waits for the delayed acknowledgement": {
			lines: opening + `
				20 > PA 0+100
				80 < A ack=100
				80.1 > PA 100+100
				100 < PA 0+100 ack=200
				100.2 > PA 200+100 ack=100
				160 < A 100+0 ack=300
				160.1 > PA 300+100 ack=100`,
			want: `client: segments 6 data 4 bytes 400 pure 1 piggybacked 1 nagle 2 (120ms)
				server: segments 4 data 1 bytes 100 pure 2 piggybacked 1`,
		},
		"the same at the server, which delayed it": {
			at: talker{server: true},
			lines: openingAtServer + `
				30 > PA 0+100
				70 < A ack=100
				90 > PA 100+100
				90 < PA 0+100 ack=200`,
			want: `client: segments 4 data 2 bytes 200 pure 1
				server: segments 3 data 1 bytes 100 pure 1 piggybacked 1 delayed 1`,
		},
		"full segments that an acknowledgement lets out are no wait of Nagle": {
			lines: opening + `
				20 > A 0+1460
				40 < A ack=1460
				40 > A 1460+1460
				60 < A ack=2920
				60 > PA 2920+100`,
			want: `client: segments 5 data 3 bytes 3020 pure 1
				server: segments 3 pure 2`,
		},
		"the answer that follows an acknowledgement lets out the next request": {
			lines: opening + `
				20 > PA 0+100
				41 < A ack=100
				41.1 < PA 0+100 ack=100
				41.3 > PA 100+100 ack=100`,
			want: `client: segments 4 data 2 bytes 200 pure 1 piggybacked 1
				server: segments 3 data 1 bytes 100 pure 1`,
		},
		"a full window, its probes and its opening": {
			lines: opening + `
				20 > A 0+1460
				40 < A ack=1460 win=0
				240 > A 1459+0
				260 < A ack=1460 win=0
				300 < A ack=1460 win=400`,
			want: `client: segments 4 data 1 bytes 1460 pure 1 probes 1
				server: segments 4 pure 3 window-updates 1 zero-windows 2`,
		},
		"keep-alives and their answers are no duplicate acknowledgements": {
			lines: opening + `
				20 > PA 0+100
				40 < A ack=100
				10040 > A 99+0
				10060 < A ack=100
				20060 > A 99+1
				20080 < A ack=100`,
			want: `client: segments 5 data 1 bytes 100 pure 1 probes 2
				server: segments 4 pure 3`,
		},
		"a handshake again and again": {
			lines: `0 > S
				1000 > S
				3000 > S
				3020 < SA
				4020 < SA
				4020 > A`,
			want: `client: segments 4 pure 1 syn-again 2
				server: segments 2 syn-again 1`,
		},
		"refused": {
			lines: `0 > S
				20 < RA ack=0`,
			want: `client: segments 1
				server: segments 1 resets 1`,
		},
		"the server closes first, and its end is sent again": {
			lines: opening + `
				30 < FA 0+0
				230 < FA 0+0
				230 > A ack=1
				240 > FA 0+0 ack=1
				260 < A 1+0 ack=1`,
			want: `client: segments 4 pure 2 fins 1
				server: segments 4 pure 1 fins 1 fin-again 1 first-fins 1`,
		},
		"congestion is reported and answered": {
			lines: `0 > SEW
				20 < SAE
				20 > A
				20 > A 0+1460
				40 < AE ack=1460
				40 > AW 1460+1460`,
			want: `client: segments 4 data 2 bytes 2920 pure 1 ece 1
				server: segments 2 pure 1 ece 1`,
		},
		"a router, which sees each packet twice": {
			at: talker{router: true},
			lines: `5 > S id=1
				5 > S iface=1 old=1
				15 < SA iface=1 id=1
				15 < SA old=1
				25 > A id=2
				25 > A iface=1 old=2`,
			want: `client: segments 2 pure 1
				server: segments 1`,
		},
		"headers are enough": {
			lines: opening + `20 > PA 0+1000 raw=64`,
			want: `client: segments 3 data 1 bytes 1000 pure 1
				server: segments 1`,
		},
		"from the middle on": {
			lines: `20 > PA 5000+100
				40 < A ack=5100
				50 > PA 5100+100`,
			want: `client: segments 2 data 2 bytes 200
				server: segments 1 pure 1`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := test.at
			k.t = t
			var r Reading
			for _, p := range k.packets(test.lines) {
				r.Add(p)
			}
			if len(r.Connections) != 1 || r.Damaged != 0 || r.Others != 0 {
				t.Fatalf("%d connections, %d damaged, %d others", len(r.Connections), r.Damaged, r.Others)
			}
			var want strings.Builder
			for line := range strings.Lines(test.want) {
				want.WriteString(strings.TrimSpace(line) + "\n")
			}
			if diff := cmp.Diff(want.String(), tell(r.Connections[0])); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHandshake(t *testing.T) {
	k := talker{t: t}
	var r Reading
	for _, p := range k.packets(opening) {
		r.Add(p)
	}
	c := r.Connections[0]
	if c.Client != clientEnd || c.Server != serverEnd {
		t.Errorf("%v to %v", c.Client, c.Server)
	}
	if !c.SYN.Equal(at(0)) || !c.SYNACK.Equal(at(20)) || !c.Established.Equal(at(20)) {
		t.Errorf("SYN %v, SYN-ACK %v, established %v", c.SYN, c.SYNACK, c.Established)
	}
	for _, e := range []End{c.FromClient, c.FromServer} {
		if e.MSS != 1460 || e.WindowScale != 7 || !e.SACKPermitted || e.Timestamps {
			t.Errorf("options %+v", e)
		}
	}
	s := Summary("get", r.Connections)
	if s.GetName() != "get" || s.GetConnections() != 1 || s.GetSynAck().GetP50().AsDuration() != 20*time.Millisecond || s.GetClient().GetMss() != 1460 {
		t.Errorf("the summary is %v", s)
	}
}

// A port that is used again is another connection; a SYN that is sent again is not.
func TestSeveralConnections(t *testing.T) {
	k := talker{t: t}
	var r Reading
	for _, p := range k.packets(opening + `
		30 > FA 0+0
		50 < FA 0+0 ack=1
		50 > A 1+0 ack=1
		60 > S isn=777
		80 < SA isn=888 ack=0
		80 > A 0+0
		100 > S port=40001
		1100 > S port=40001`) {
		r.Add(p)
	}
	var got []string
	for _, c := range r.Connections {
		got = append(got, c.Client.String()+" "+c.First.Sub(talkBegan).String())
	}
	if diff := cmp.Diff([]string{"10.0.0.1:40000 0s", "10.0.0.1:40000 60ms", "10.0.0.1:40001 100ms"}, got); diff != "" {
		t.Error(diff)
	}
	s := Summary("", r.Connections)
	if s.GetConnections() != 3 || s.GetHandshake().GetCount() != 2 || s.GetClient().GetSynRetransmissions() != 1 || s.GetClient().GetFirstFins() != 1 {
		t.Errorf("the summary is %v", s)
	}
}
