package main

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"
)

// way is one direction of a TCP connection, by the addresses and ports of who sent and who received.
type way struct{ from, to string }

// tally is what went one way.
type tally struct {
	segments, data, bytes uint64
	again                 uint64 // segments with data that were not new, or came late
	syns, resets          uint64
	left                  bool // they left the capture's node, where they otherwise came to it
}

// seenByTshark is what tshark makes of a file.
type seenByTshark struct {
	ways               map[way]*tally
	streams            map[string]bool // as it numbers connections
	questions, answers uint64          // of DNS over UDP
}

// tsharkFields are what it prints of each packet, a column each.
func tsharkFields() []string {
	return []string{
		"tcp.stream", "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "tcp.len", "tcp.flags.syn", "tcp.flags.reset",
		"tcp.analysis.retransmission", "tcp.analysis.fast_retransmission", "tcp.analysis.spurious_retransmission", "tcp.analysis.out_of_order",
		"dns.flags.response", "frame.packet_flags_direction",
	}
}

// tshark has tshark read a capture. Reading a file takes none of the rights that capturing does.
func (b *Bench) tshark(ctx context.Context, file string) (*seenByTshark, error) {
	args := []string{"-r", file, "-n", "-Y", "tcp || dns", "-T", "fields"}
	fields := tsharkFields()
	for _, field := range fields {
		args = append(args, "-e", field)
	}
	result, err := b.Exec(ctx, "tshark", args...)
	if err != nil {
		return nil, err
	}
	if result.Status != 0 {
		return nil, fmt.Errorf("tshark: exit status %d: %s", result.Status, lastLines(result.Stderr))
	}
	seen := &seenByTshark{ways: make(map[way]*tally), streams: make(map[string]bool)}
	for scanner := bufio.NewScanner(strings.NewReader(result.Stdout)); scanner.Scan(); {
		columns := strings.Split(scanner.Text(), "\t")
		if len(columns) != len(fields) {
			return nil, fmt.Errorf("tshark printed %q: %d columns, not %d", scanner.Text(), len(columns), len(fields))
		}
		if err := seen.packet(columns); err != nil {
			return nil, fmt.Errorf("tshark printed %q: %w", scanner.Text(), err)
		}
	}
	return seen, nil
}

// packet enters a packet, by its columns.
func (s *seenByTshark) packet(columns []string) error {
	set := func(i int) bool { return columns[i] == "1" || columns[i] == "True" }
	if columns[0] == "" {
		if set(12) {
			s.answers++
		} else {
			s.questions++
		}
		return nil
	}
	s.streams[columns[0]] = true
	on := way{columns[1] + ":" + columns[2], columns[3] + ":" + columns[4]}
	t := s.ways[on]
	if t == nil {
		t = &tally{}
		s.ways[on] = t
	}
	length, err := strconv.ParseUint(columns[5], 10, 16)
	if err != nil {
		return fmt.Errorf("read the segment's length: %w", err)
	}
	t.segments++
	t.left = columns[13] == "0x00000002" // pcapng's epb_flags: 1 inbound, 2 outbound
	if length > 0 {
		t.data++
		t.bytes += length
		if columns[8] != "" || columns[9] != "" || columns[10] != "" || columns[11] != "" {
			t.again++
		}
	}
	if set(6) {
		t.syns++
	}
	if set(7) {
		t.resets++
	}
	return nil
}
