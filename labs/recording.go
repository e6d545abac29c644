package labs

import (
	"bytes"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tcplab/tcplab/labs/unit"
)

// Bounds of a recorded link, those of the contract.
const (
	maxOpportunities = 2_000_000      // moments of a packet-delivery file
	maxSteps         = 100_000        // of a schedule, and so rows of a table
	maxScheduleTime  = 24 * time.Hour // of a schedule, and of a recording
	maxQuantiles     = 16384
	maxDeviation     = 4    // of quantiles, in units of the jitter's amount
	distScale        = 8192 // of iproute2's tables (NETEM_DIST_SCALE in include/uapi/linux/pkt_sched.h)
)

// recording is what a trace's file holds: moments at which packets can be
// sent, or rows of what the link was like.
type recording struct {
	opportunities []uint32 // ms; shared by all points, never written to
	columns       []column // of a table; the time first
	rows          []row
}

// row is what a recorded link was like from a time on.
type row struct {
	at    time.Duration // since the first row
	rate  float64       // bit/s
	delay time.Duration
	loss  float64
}

// has reports whether the recording has a column.
func (r *recording) has(key string) bool {
	for _, c := range r.columns {
		if c.key == key {
			return true
		}
	}
	return false
}

// sets are the keys of a shape that the recording takes the place of.
func (r *recording) sets() []string {
	var keys []string
	if r == nil {
		return nil
	}
	if r.opportunities != nil {
		return []string{"rate", "overhead", "burst"}
	}
	for _, c := range r.columns[1:] {
		keys = append(keys, c.key)
	}
	return keys
}

// isText refuses what cannot be a text: the place of the first byte that is
// none is told.
func isText(name string, content []byte, r *report) bool {
	bad := firstInvalid(content)
	if i := bytes.IndexByte(content, 0); i >= 0 {
		bad = min(bad, i)
	}
	if bad == len(content) {
		return true
	}
	r.add(placeOfByte(Source{Name: name, Content: content}, bad), "", "the file is not text here")
	return false
}

// eachLine calls f with each line that says something, and where it starts,
// until f reports false. What follows a # is a comment.
func eachLine(name string, content []byte, f func(at position, line string) bool) {
	number := 0
	for line := range bytes.Lines(content) {
		number++
		says, _, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), "#")
		says = strings.TrimRight(says, " \t")
		trimmed := strings.TrimLeft(says, " \t")
		if trimmed == "" {
			continue
		}
		if !f(position{file: name, line: number, column: 1 + len(says) - len(trimmed)}, trimmed) {
			return
		}
	}
}

// readPacketDelivery reads the format of mahimahi (R. Netravali and others,
// "Mahimahi", 2015): a whole number of ms on each line, not falling; at each of them the
// link could send one full packet. It returns nil with a problem.
func readPacketDelivery(name string, content []byte, r *report) *recording {
	if !isText(name, content, r) {
		return nil
	}
	rec := &recording{opportunities: make([]uint32, 0, bytes.Count(content, []byte{'\n'})+1)}
	ok := true
	eachLine(name, content, func(at position, line string) bool {
		ms, err := strconv.ParseUint(line, 10, 32)
		last := uint32(0)
		if n := len(rec.opportunities); n > 0 {
			last = rec.opportunities[n-1]
		}
		switch {
		case err != nil:
			r.add(at, "a packet-delivery file has a whole number of milliseconds on each line; a table of time, rate, delay and loss ends in .csv",
				"want milliseconds, not %s", (&node{kind: text, text: line}).describe())
		case ms > uint64(maxScheduleTime.Milliseconds()):
			r.add(at, "", "%d ms is longer than 24 h", ms)
		case uint32(ms) < last:
			r.add(at, "", "the times fall: %d ms comes after %d ms", ms, last)
		case len(rec.opportunities) == maxOpportunities:
			r.add(at, "", "the file has more than %d lines", maxOpportunities)
		default:
			rec.opportunities = append(rec.opportunities, uint32(ms))
			return true
		}
		ok = false
		return false
	})
	if n := len(rec.opportunities); ok && (n == 0 || rec.opportunities[n-1] == 0) {
		r.add(position{file: name, line: 1, column: 1}, "", "the file has no time after 0, and so no length")
		ok = false
	}
	if !ok {
		return nil
	}
	return rec
}

// readQuantiles reads a table of jitter: numbers with blanks between them, or
// 8192ths of a file that ends in .dist, as iproute2's are. It returns nil with a problem.
func readQuantiles(name string, content []byte, r *report) []float64 {
	if !isText(name, content, r) {
		return nil
	}
	scale := 1.0
	if strings.HasSuffix(name, ".dist") {
		scale = distScale
	}
	var table []float64
	ok := true
	eachLine(name, content, func(at position, line string) bool {
		for rest := line; rest != ""; {
			word, after, _ := strings.Cut(strings.ReplaceAll(rest, "\t", " "), " ")
			here := at
			here.column += utf8.RuneCountInString(line[:len(line)-len(rest)])
			rest = after
			if word == "" {
				continue
			}
			q, err := unit.Parse(word)
			value := q.Value / scale
			switch {
			case err != nil || q.Dimension != unit.Scalar:
				r.add(here, "such as -0.5 or 1.25", "want a number without a unit, not %s", (&node{kind: text, text: word}).describe())
			case value < -maxDeviation || value > maxDeviation:
				r.add(here, "", "the quantile %v is not between -%d and %d times the amount", value, maxDeviation, maxDeviation)
			case len(table) > 0 && value < table[len(table)-1]:
				r.add(here, "sort them", "the quantiles fall: %v comes after %v", value, table[len(table)-1])
			case len(table) == maxQuantiles:
				r.add(here, "", "the table has more than %d quantiles", maxQuantiles)
			default:
				table = append(table, value)
				continue
			}
			ok = false
			return false
		}
		return true
	})
	if ok && len(table) < 2 {
		r.add(position{file: name, line: 1, column: 1}, "", "a table has at least two quantiles")
		ok = false
	}
	if !ok {
		return nil
	}
	return table
}
