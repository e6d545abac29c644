package trace

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bothEnds are what the two ends capture of a talk: lines are of the client's node, and each arrives, or left
// before, 10 ms away; those that end with "lost" never come, and those with "there twice" come twice.
func bothEnds(t testing.TB, lines string) (client, server []Event) {
	t.Helper()
	near, far := talker{t: t}, talker{t: t, server: true}
	var nearPackets, farPackets []Packet
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		line, lost := strings.CutSuffix(line, " lost")
		line, twice := strings.CutSuffix(line, " twice")
		p, q := near.packet(line), far.packet(line)
		if p.Way == Out {
			q.Time = q.Time.Add(10 * time.Millisecond)
			nearPackets = append(nearPackets, p)
			if !lost {
				farPackets = append(farPackets, q)
			}
			if twice {
				farPackets = append(farPackets, q)
			}
			continue
		}
		q.Time = q.Time.Add(-10 * time.Millisecond)
		farPackets = append(farPackets, q)
		if !lost {
			nearPackets = append(nearPackets, p)
		}
	}
	return eventsOf(nearPackets), eventsOf(farPackets)
}

func eventsOf(packets []Packet) (events []Event) {
	sortByTime(packets)
	var r Reading
	for _, p := range packets {
		if _, e := r.Read(p); e != nil {
			events = append(events, *e)
		}
	}
	return events
}

func sortByTime(packets []Packet) {
	for i := range packets {
		for j := i; j > 0 && packets[j].Time.Before(packets[j-1].Time); j-- {
			packets[j], packets[j-1] = packets[j-1], packets[j]
		}
	}
}

// tellArrows is one line an arrow: when it left, when it came, who sent it, and what it is.
func tellArrows(x Exchange) string {
	var b strings.Builder
	when := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return fmt.Sprint(float64(t.Sub(talkBegan)) / 1e6)
	}
	for _, a := range x.Arrows {
		way, lost := "<", ""
		if a.FromClient {
			way = ">"
		}
		if a.Lost {
			lost = " lost"
		}
		notes := ""
		if len(a.Notes) > 0 {
			notes = " (" + strings.Join(a.Notes, "; ") + ")"
		}
		fmt.Fprintf(&b, "%s %s %s %s %d+%d ack %d%s%s\n", way, when(a.Sent), when(a.Received), a.Flags&^PSH, a.Seq, a.Payload, a.Ack, lost, notes)
	}
	return b.String()
}

const lossy = `
	0  > S
	20 < SA
	20.1 > A
	20.2 > A 0+1460
	20.3 > A 1460+1460 lost
	20.4 > A 2920+1460
	20.5 > A 4380+1460
	20.6 > A 5840+1460 twice
	40.2 < A ack=1460
	40.4 < A ack=1460 sack=2920-4380
	40.5 < A ack=1460 sack=2920-5840
	40.6 < A ack=1460 sack=2920-7300 lost
	40.7 < A ack=1460 sack=2920-7300
	40.9 > A 1460+1460
	61 < A ack=7300`

func TestPair(t *testing.T) {
	client, server := bothEnds(t, lossy)
	which := Which{Client: clientEnd, Server: serverEnd}
	for name, test := range map[string]struct {
		whole    bool
		captures [][]Event
		want     string
	}{
		"both": {true, [][]Event{server, client}, `
> 0 10 SYN 0+0 ack 0
< 10 20 SYN ACK 0+0 ack 1
> 20.1 30.1 ACK 1+0 ack 1
> 20.2 30.2 ACK 1+1460 ack 1
> 20.3 - ACK 1461+1460 ack 1 lost
> 20.4 30.4 ACK 2921+1460 ack 1
> 20.5 30.5 ACK 4381+1460 ack 1
> 20.6 30.6 ACK 5841+1460 ack 1
< 30.2 40.2 ACK 1+0 ack 1461
< 30.4 40.4 ACK 1+0 ack 1461 (duplicate ACK)
< 30.5 40.5 ACK 1+0 ack 1461 (duplicate ACK)
< 30.6 - ACK 1+0 ack 1461 lost (duplicate ACK)
> - 30.6 ACK 5841+1460 ack 1 (there twice)
< 30.7 40.7 ACK 1+0 ack 1461 (duplicate ACK)
> 40.9 50.9 ACK 1461+1460 ack 1 (sent again, fast)
< 51 61 ACK 1+0 ack 7301
`},
		"a capture that is not whole proves no loss": {false, [][]Event{client[:5], server[:4]}, `
> 0 10 SYN 0+0 ack 0
< 10 20 SYN ACK 0+0 ack 1
> 20.1 30.1 ACK 1+0 ack 1
> 20.2 30.2 ACK 1+1460 ack 1
> 20.3 - ACK 1461+1460 ack 1
`},
		"the client alone": {true, [][]Event{client[:4]}, `
> 0 - SYN 0+0 ack 0
< - 20 SYN ACK 0+0 ack 1
> 20.1 - ACK 1+0 ack 1
> 20.2 - ACK 1+1460 ack 1
`},
		"nobody": {true, nil, "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, "\n"+tellArrows(Pair(which, test.whole, test.captures...))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A server that never answers has captured nothing: then the client's SYNs came nowhere.
func TestPairOfNoAnswer(t *testing.T) {
	client, server := bothEnds(t, "0 > S\n1000 > S lost")
	x := Pair(Which{Client: clientEnd, Server: serverEnd}, true, client, server)
	if diff := cmp.Diff("> 0 10 SYN 0+0 ack 0\n> 1000 - SYN 0+0 ack 0 lost (sent again)\n", tellArrows(x)); diff != "" {
		t.Error(diff)
	}
}
