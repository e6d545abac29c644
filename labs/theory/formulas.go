package theory

import "fmt"

// Formulas are the package's predictions, from a connection's first packet to its last.
func Formulas() []Formula {
	var all []Formula
	for _, group := range [][]Formula{connectionFormulas(), transferFormulas(), pageFormulas(), congestionFormulas()} {
		all = append(all, group...)
	}
	return all
}

func rttParameter() Parameter {
	return Parameter{Name: "rtt", Kind: Time, About: "round-trip time, R"}
}

func rateParameter() Parameter {
	return Parameter{Name: "rate", Kind: Rate, About: "bottleneck, C", Optional: true}
}

func bytesParameter() Parameter {
	return Parameter{Name: "bytes", Kind: Bytes, About: "size, N"}
}

func mtuParameter() Parameter {
	return Parameter{Name: "mtu", Kind: Bytes, About: "largest IP packet", Optional: true, Default: 1500}
}

func timestampsParameter() Parameter {
	return Parameter{Name: "timestamps", Kind: Switch, About: "whether segments carry timestamps", Optional: true, Default: 1}
}

// requestParameters are those of one request on a connection.
func requestParameters() []Parameter {
	return []Parameter{
		rttParameter(),
		{Name: "think", Kind: Time, About: "the server's time, S", Optional: true},
		{Name: "request", Kind: Bytes, About: "size of the request", Optional: true, Default: 100},
		{Name: "reply", Kind: Bytes, About: "size of the reply", Optional: true, Default: 500},
		rateParameter(),
	}
}

func connectionFormulas() []Formula {
	return []Formula{
		{
			Name: "serialization", About: "what a bottleneck takes to send a size",
			Parameters: []Parameter{bytesParameter(), {Name: "rate", Kind: Rate, About: "bottleneck, C"}}, Unit: "s",
			Law: "8·N/C", Valid: "the size has the headers in it", Source: "the definition of a rate",
			derive: func(v values) Derivation {
				return chain(Step{"each bit is sent once", "8·N/C", Serialization(v.count(0), v[1]).Seconds(), "s"})
			},
		},
		{
			Name: "handshake", About: "from connect(2) to its completion",
			Parameters: []Parameter{rttParameter(), rateParameter()}, Unit: "s",
			Law: "R + 2·8·74/C", Valid: "neither SYN nor SYN-ACK is lost; the listener's queue has room", Source: "RFC 9293, 3.5",
			derive: func(v values) Derivation { return handshakeTerms(v.duration(0), v[1]).derivation("s") },
		},
		{
			Name: "request", About: "a request and its reply on an open connection",
			Parameters: requestParameters(), Unit: "s",
			Law: "R + S + 8·(request + reply + 2·66)/C", Valid: "each fits one segment", Source: "RFC 9293",
			derive: func(v values) Derivation {
				return requestTerms(v.duration(0), thinking(v.duration(1)), v.count(2), v.count(3), v[4]).derivation("s")
			},
		},
		{
			Name: "first_request", About: "a request and its reply on a connection opened for it: the small GET",
			Parameters: requestParameters(), Unit: "s",
			Law:   "2R + S where the link is fast",
			Valid: "each fits one segment; nothing is lost", Source: "RFC 9293, 3.5; Linux: tcp_incr_quickack in net/ipv4/tcp_input.c",
			derive: func(v values) Derivation {
				return firstRequestTerms(v.duration(0), v.duration(1), v.count(2), v.count(3), v[4]).derivation("s")
			},
		},
		{
			Name: "fast_open_request", About: "the same with a TCP Fast Open cookie: the request travels in the SYN",
			Parameters: requestParameters(), Unit: "s",
			Law: "R + S where the link is fast", Valid: "the server accepts the cookie; request and options fit one segment", Source: "RFC 7413",
			derive: func(v values) Derivation {
				return fastOpenTerms(v.duration(0), v.duration(1), v.count(2), v.count(3), v[4]).derivation("s")
			},
		},
		{
			Name: "syn_delay", About: "what lost SYNs add to a handshake",
			Parameters: []Parameter{
				{Name: "lost", Kind: Count, About: "SYNs lost, one after another", Most: 127},
				{Name: "linear", Kind: Count, About: "tcp_syn_linear_timeouts; 0 before Linux 6.5", Optional: true, Default: 4, Most: 255},
			}, Unit: "s",
			Law:   "lost · 1 s up to linear + 1 of them, then each doubles, up to 120 s",
			Valid: "timers add up to a sixteenth", Source: "RFC 6298, 2.1; Linux: tcp_retransmit_timer in net/ipv4/tcp_timer.c",
			derive: func(v values) Derivation { return synDelayTerms(v.count(0), v.count(1)).derivation("s") },
		},
		{
			Name: "timer_slack", About: "how late a kernel timer of some length may be",
			Parameters: []Parameter{
				{Name: "time", Kind: Time, About: "length of the timer", Most: 24 * 3600},
				{Name: "hz", Kind: Count, About: "the kernel's HZ", Optional: true, Default: 250, Least: 1, Most: 10000},
			}, Unit: "s",
			Law: "8^n·j for 63·8^(n−1) jiffies and more", Valid: "a timer of the wheel; a jiffy j is 1/HZ", Source: "Linux: LVL_GRAN in kernel/time/timer.c",
			derive: func(v values) Derivation {
				return chain(
					Step{"a jiffy", "1/HZ", Jiffy(v.count(1)).Seconds(), "s"},
					Step{"the timer in jiffies", "⌈time/j⌉", float64(Jiffies(v.duration(0), v.count(1))), ""},
					Step{"how coarse the wheel is there", "8^n·j", TimerSlack(v.duration(0), v.count(1)).Seconds(), "s"})
			},
		},
		{
			Name: "port_limit", About: "connections a second that a client can open for long and close first",
			Parameters: []Parameter{{Name: "ports", Kind: Count, About: "local ports it may use, P", Optional: true, Default: EphemeralPorts, Least: 1}},
			Law:        "P/60 s", Valid: "to one address and port; tcp_tw_reuse off; tcp_max_tw_buckets at least P", Source: "Linux: TCP_TIMEWAIT_LEN in include/net/tcp.h",
			derive: func(v values) Derivation {
				return chain(
					Step{"an ended connection keeps its port", "60 s", TimeWait.Seconds(), "s"},
					Step{"each port serves once in that time", "P/60 s", PortLimit(v.count(0)), ""})
			},
		},
	}
}

func transferFormulas() []Formula {
	return []Formula{
		{
			Name: "rounds", About: "windows that a size takes in slow start",
			Parameters: []Parameter{bytesParameter()},
			Law:        "⌈log2(N/(10·1448) + 1)⌉", Valid: "an initial window of 10 segments of 1448 B", Source: "RFC 6928; RFC 5681, 3.1",
			derive: func(v values) Derivation {
				t := Transfer{Bytes: v.count(0)}
				steps := []Step{{"segments to send", "⌈N/1448⌉", float64(Segments(t.Bytes, t.mss())), ""}}
				sent := 0
				for round := 1; round <= t.Rounds(); round++ {
					sent += t.Window(round)
					steps = append(steps, Step{fmt.Sprintf("segments that round %d makes possible", round), fmt.Sprintf("10·(2^%d − 1)", round), float64(sent), ""})
				}
				return chain(append(steps, Step{"rounds", "the first that is enough", float64(t.Rounds()), ""})...)
			},
		},
		{
			Name: "window", About: "congestion window in segments that a round of slow start begins with",
			Parameters: []Parameter{{Name: "round", Kind: Count, About: "from 1"}},
			Law:        "10·2^(round − 1)", Valid: "nothing is lost; the window is used up each round; up to round 41", Source: "RFC 6928; Linux: tcp_slow_start in net/ipv4/tcp_cong.c",
			derive: func(v values) Derivation {
				return chain(
					Step{"the initial window", "10", InitialWindow, ""},
					Step{"doubled each round", "10·2^(round − 1)", float64(Transfer{}.Window(v.count(0))), ""})
			},
		},
		{
			Name: "slow_start", About: "from connect(2) to the last byte of a reply of a size",
			Parameters: []Parameter{bytesParameter(), rttParameter(), rateParameter()}, Unit: "s",
			Law:    "R + R·⌈log2(N/(10·1448) + 1)⌉ where the link sends a window in far less than R",
			Valid:  "only the congestion window limits; nothing is lost; reno, or a link that is not saturated",
			Source: "RFC 5681, 3.1; RFC 6928",
			derive: func(v values) Derivation { return slowStartTerms(v.count(0), v.duration(1), v[2]).derivation("s") },
		},
		{
			Name: "write_write_read", About: "a request in two small writes, and its reply",
			Parameters: []Parameter{
				{Name: "rtt", Kind: Time, About: "round-trip time, R", Most: 2 * 3600},
				{Name: "policy", Kind: PolicyName, About: "no_delay, quick_ack or nagle", Optional: true, Default: float64(Nagle)},
				{Name: "hz", Kind: Count, About: "the kernel's HZ", Optional: true, Default: 250, Most: 10000},
			}, Unit: "s",
			Law:    "no_delay: R; quick_ack: 2R; nagle: 2R + 40 ms + 1/HZ where 2R is whole jiffies",
			Valid:  "transactions back to back, past the first of their connection",
			Source: "RFC 896; RFC 9293, 3.8.6.3; Linux: TCP_DELACK_MIN in include/net/tcp.h",
			derive: func(v values) Derivation {
				return writeWriteReadTerms(v.duration(0), Policy(v.count(1)), v.count(2)).derivation("s")
			},
		},
		{
			Name: "segment_size", About: "the most data that a segment carries",
			Parameters: []Parameter{mtuParameter(), timestampsParameter()}, Unit: "B",
			Law: "MTU − 20 − 20 − 12", Valid: "IPv4 without options", Source: "RFC 9293, 3.7.1; RFC 7323; RFC 6691",
			derive: func(v values) Derivation { return segmentSizeTerms(v.count(0), v.on(1)).derivation("B") },
		},
		{
			Name: "segments", About: "segments in which a size travels that is written at once",
			Parameters: []Parameter{bytesParameter(), {Name: "mss", Kind: Bytes, About: "data in a full segment", Optional: true, Default: MSS, Least: 1}},
			Law:        "⌈N/MSS⌉", Valid: "nothing is sent again, and nothing later written joins", Source: "RFC 9293, 3.7",
			derive: func(v values) Derivation {
				return chain(Step{"full segments, and the rest in one", "⌈N/MSS⌉", float64(Segments(v.count(0), v.count(1))), ""})
			},
		},
		{
			Name: "goodput_share", About: "share of a link's rate that full segments leave for data",
			Parameters: []Parameter{mtuParameter(), timestampsParameter()},
			Law:        "MSS/(MTU + 14)", Valid: "Ethernet without FCS, preamble and gap; the other way is free", Source: "RFC 894; RFC 791; RFC 9293; RFC 7323",
			derive: func(v values) Derivation {
				return chain(
					Step{"data in a segment", "MTU − headers", float64(SegmentSize(v.count(0), v.on(1))), "B"},
					Step{"its frame", "MTU + 14", float64(v.count(0) + EthernetHeader), "B"},
					Step{"share", "MSS/(MTU + 14)", GoodputShare(v.count(0), v.on(1)), ""})
			},
		},
		{
			Name: "transaction_segments", About: "segments of a small request and its reply, both ways together",
			Parameters: []Parameter{
				{Name: "server", Kind: Time, About: "how long the server thinks", Optional: true},
				{Name: "client", Kind: Time, About: "how long the client thinks before its next request", Optional: true},
			},
			Law: "2, and 1 for each end that thinks longer than 40 ms", Valid: "past a connection's first segments; not between 20 and 60 ms", Source: "RFC 9293, 3.8.6.3; Linux: tcp_event_data_sent in net/ipv4/tcp_output.c",
			derive: func(v values) Derivation { return transactionTerms(v.duration(0), v.duration(1)).derivation("") },
		},
	}
}

// pageParameters are those of a [Page], and last the bytes and the rate that make its ObjectTime.
func pageParameters() []Parameter {
	return []Parameter{
		{Name: "objects", Kind: Count, About: "objects of the page, n"},
		rttParameter(),
		{Name: "server_time", Kind: Time, About: "the server's time for each, S", Optional: true},
		{Name: "bytes", Kind: Bytes, About: "size of each; d is what the bottleneck takes for it"},
		rateParameter(),
	}
}

func (v values) page() Page {
	return Page{Objects: v.count(0), RTT: v.duration(1), ServerTime: v.duration(2), ObjectTime: Serialization(v.count(3), v[4])}
}

func pageFormulas() []Formula {
	connections := Parameter{Name: "k", Kind: Count, About: "connections side by side", Least: 1}
	return []Formula{
		{
			Name: "serial", About: "a page with a connection for each object, one after another",
			Parameters: pageParameters(), Unit: "s",
			Law: "n·(2R + S + d)", Valid: "an object fits the initial window", Source: "RFC 1945, 1.3",
			derive: func(v values) Derivation { return v.page().serialTerms().derivation("s") },
		},
		{
			Name: "parallel", About: "a page over k connections side by side, each for one object",
			Parameters: append([]Parameter{connections}, pageParameters()...), Unit: "s",
			Law: "⌈n/k⌉·(2R + S) + n·d", Valid: "d is short beside 2R + S", Source: "RFC 9112, 9.4",
			derive: func(v values) Derivation { return v[1:].page().parallelTerms(v.count(0)).derivation("s") },
		},
		{
			Name: "keep_alive", About: "a page over one connection that stays open, one request at a time",
			Parameters: pageParameters(), Unit: "s",
			Law: "R + n·(R + S + d)", Valid: "an object fits the window", Source: "RFC 9112, 9.3",
			derive: func(v values) Derivation { return v.page().keepAliveTerms().derivation("s") },
		},
		{
			Name: "pipelined", About: "a page over one connection on which all requests are sent at once",
			Parameters: pageParameters(), Unit: "s",
			Law: "2R + n·(S + d)", Valid: "the answers fit the window; the server makes one at a time", Source: "RFC 9112, 9.3.2",
			derive: func(v values) Derivation { return v.page().pipelinedTerms().derivation("s") },
		},
	}
}

func congestionFormulas() []Formula {
	loss := Parameter{Name: "loss", Kind: Chance, About: "probability that a packet is lost, p"}
	flow := []Parameter{{Name: "mss", Kind: Bytes, About: "data in a segment", Optional: true, Default: MSS}, rttParameter(), loss}
	one := func(v values) Step {
		return Step{"a segment each round trip", "8·MSS/R", segmentRate(v.count(0), v.duration(1)), "bit/s"}
	}
	return []Formula{
		{
			Name: "reno_rate", About: "what a flow of reno gets where packets are lost at random",
			Parameters: flow, Unit: "bit/s",
			Law: "8·MSS/R · √(3/2)/√p", Valid: "small p, below the bottleneck's rate, without timeouts", Source: "Mathis, Semke, Mahdavi, Ott, 1997",
			derive: func(v values) Derivation {
				return chain(one(v),
					Step{"the mean window in segments", "√(3/2)/√p", RenoWindow(v[2]), ""},
					Step{"both", "8·MSS/R · window", RenoRate(v.count(0), v.duration(1), v[2]), "bit/s"})
			},
		},
		{
			Name: "cubic_rate", About: "what a flow of cubic gets there",
			Parameters: flow, Unit: "bit/s",
			Law: "8·MSS/R · max(1.054·(R/p)^(3/4), √(3/2)/√p)", Valid: "as reno_rate", Source: "RFC 9438, 5.1 and 4.3",
			derive: func(v values) Derivation {
				return chain(one(v),
					Step{"the mean window of reno in segments", "√(3/2)/√p", RenoWindow(v[2]), ""},
					Step{"that of cubic, which is no less", "1.054·(R/p)^(3/4)", CubicWindow(v.duration(1), v[2]), ""},
					Step{"both", "8·MSS/R · window", CubicRate(v.count(0), v.duration(1), v[2]), "bit/s"})
			},
		},
		{
			Name: "bbr_rate", About: "what a flow of bbr gets there",
			Parameters: []Parameter{{Name: "rate", Kind: Rate, About: "bottleneck, C"}, {Name: "loss", Kind: Chance, About: loss.About}}, Unit: "bit/s",
			Law: "C·(1 − p)", Valid: "p well below 20%", Source: "Cardwell et al.: BBR, 2016",
			derive: func(v values) Derivation {
				return chain(Step{"what is not lost", "C·(1 − p)", BBRRate(v[0], v[1]), "bit/s"})
			},
		},
		{
			Name: "queue_delay", About: "what a packet waits behind a full first-in-first-out queue",
			Parameters: []Parameter{bytesParameter(), {Name: "rate", Kind: Rate, About: "bottleneck, C"}}, Unit: "s",
			Law: "8·N/C", Valid: "a flow keeps the queue full that stops growing only at a loss", Source: "Gettys and Nichols: Bufferbloat, 2011",
			derive: func(v values) Derivation {
				return chain(Step{"all that waits is sent first", "8·N/C", QueueDelay(v.count(0), v[1]).Seconds(), "s"})
			},
		},
	}
}
