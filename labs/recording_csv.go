package labs

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tcplab/tcplab/labs/unit"
)

// column is one of a recorded table.
type column struct {
	key       string         // "time", "rate", "delay" or "loss"
	dimension unit.Dimension // of its values
	unit      string         // that the header gives for all of them; or empty
}

func columnsOf() []column {
	return []column{
		{key: "time", dimension: unit.Duration},
		{key: "rate", dimension: unit.Rate},
		{key: "delay", dimension: unit.Duration},
		{key: "loss", dimension: unit.Ratio},
	}
}

const columnHint = "the columns are time, rate, delay and loss, with a unit in the header (delay_ms, or \"rate (Mbit)\") or behind each value"

// readCSV reads a table of what a link was like: a time, and from then on a
// rate, a delay and a loss, of which at least one is there. A first line that
// starts with a letter names the columns, in any order and perhaps with their unit; without it they
// are time, rate, delay, loss. Times count from the first row's. An empty field
// is as in the row before. It returns nil with a problem.
func readCSV(name string, content []byte, r *report) *recording {
	if !isText(name, content, r) {
		return nil
	}
	t := table{name: name, report: r, reader: csv.NewReader(bytes.NewReader(content)), rec: &recording{}}
	t.reader.Comment, t.reader.TrimLeadingSpace, t.reader.ReuseRecord = '#', true, true
	for {
		record, err := t.reader.Read()
		var wrong *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return t.end()
		case errors.As(err, &wrong) && errors.Is(err, csv.ErrFieldCount):
			r.add(t.place(0), "", "this line has %d fields, and those before it %d", len(record), t.reader.FieldsPerRecord)
			return nil
		case errors.As(err, &wrong):
			r.add(position{file: name, line: wrong.Line, column: max(1, wrong.Column)}, "", "this is not CSV: %s", wrong.Err)
			return nil
		case err != nil:
			r.add(position{file: name, line: 1, column: 1}, "", "this is not CSV: %s", err)
			return nil
		}
		if !t.record(record) {
			return nil
		}
	}
}

// table is a CSV file that is being read.
type table struct {
	name string
	*report
	reader *csv.Reader
	rec    *recording
	start  time.Duration // the first row's time
}

func (t *table) place(field int) position {
	line, col := t.reader.FieldPos(field)
	return position{file: t.name, line: line, column: col}
}

func (t *table) end() *recording {
	if len(t.rec.rows) == 0 {
		t.add(position{file: t.name, line: 1, column: 1}, columnHint, "the table has no rows")
		return nil
	}
	return t.rec
}

// record takes one line, and reports whether it is right.
func (t *table) record(fields []string) bool {
	if t.rec.columns == nil {
		first := strings.TrimSpace(fields[0])
		if first != "" && isLetter(rune(first[0])) {
			return t.header(fields)
		}
		if len(fields) < 2 || len(fields) > len(columnsOf()) {
			t.add(t.place(0), columnHint, "want 2 to %d columns, not %d", len(columnsOf()), len(fields))
			return false
		}
		t.rec.columns = columnsOf()[:len(fields)]
	}
	return t.row(fields)
}

func isLetter(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// header takes the names of the columns, and moves nothing: a row's fields
// stay in the file's order.
func (t *table) header(fields []string) bool {
	for i, field := range fields {
		field = strings.TrimSpace(field)
		symbol := strings.TrimLeftFunc(field, isLetter)
		key := strings.ToLower(field[:len(field)-len(symbol)])
		symbol = strings.Trim(symbol, " _()[]")
		known := slices.IndexFunc(columnsOf(), func(c column) bool { return c.key == key })
		if known < 0 {
			t.add(t.place(i), columnHint, "unknown column %s", (&node{kind: text, text: field}).describe())
			return false
		}
		c := columnsOf()[known]
		if t.rec.has(key) {
			t.add(t.place(i), "", "the column %q is there twice", key)
			return false
		}
		if c.unit = symbol; symbol != "" {
			q, err := unit.Parse("1" + symbol)
			if err != nil || q.Dimension != c.dimension {
				t.add(t.place(i), "such as "+strings.TrimLeft(c.dimension.Example(), "0123456789"), "%q is not a unit of %s", symbol, key)
				return false
			}
		}
		t.rec.columns = append(t.rec.columns, c)
	}
	switch {
	case !t.rec.has("time"):
		t.add(t.place(0), columnHint, "the table has no column for the time")
	case len(t.rec.columns) < 2:
		t.add(t.place(0), columnHint, "the table has a time and nothing else")
	default:
		return true
	}
	return false
}

func (t *table) row(fields []string) bool {
	first := len(t.rec.rows) == 0
	var next row
	if !first {
		next = t.rec.rows[len(t.rec.rows)-1]
	}
	last := next.at
	for i, c := range t.rec.columns {
		text := strings.TrimSpace(fields[i])
		if text == "" {
			if first || c.key == "time" {
				t.add(t.place(i), "an empty field is as in the row before", "the %s is missing", c.key)
				return false
			}
			continue
		}
		value, ok := t.value(i, c, text)
		if !ok {
			return false
		}
		switch c.key {
		case "time":
			next.at = time.Duration(value*1e9+0.5) - t.start
			if first {
				t.start, next.at = next.at, 0
			}
			if next.at < last {
				t.add(t.place(i), "", "the times fall: %v comes after %v", next.at+t.start, last+t.start)
				return false
			}
			if next.at > maxScheduleTime {
				t.add(t.place(i), "", "the table is longer than 24 h")
				return false
			}
		case "rate":
			next.rate = value
		case "delay":
			next.delay = time.Duration(value*1e9 + 0.5)
		case "loss":
			next.loss = value
		}
	}
	if len(t.rec.rows) > maxSteps {
		t.add(t.place(0), "", "the table has more than %d rows", maxSteps)
		return false
	}
	t.rec.rows = append(t.rec.rows, next)
	return true
}

// Bounds of the values, those of a lab file; of times what a time.Duration holds.
const (
	maxRate      = 1e12      // bit/s
	maxDelay     = time.Hour // one way
	maxTableTime = 9e9       // s; of any epoch
)

// value is a field in SI units: with the header's unit, or one of its own.
func (t *table) value(i int, c column, text string) (float64, bool) {
	at := t.place(i)
	q, err := unit.Parse(text + c.unit)
	shown := strings.ReplaceAll(text, "\n", " ")
	if len(shown) > 40 {
		shown = strings.ToValidUTF8(shown[:40], "") + "…"
	}
	var why *unit.Error
	switch {
	case errors.As(err, &why) && c.unit != "":
		t.add(at, "the header gives the unit", "want a number of %s for the %s, not %q", c.unit, c.key, shown)
		return 0, false
	case errors.As(err, &why):
		t.add(at, why.Hint, "%q %s", shown, why.Reason)
		return 0, false
	case q.Dimension == unit.Scalar && (q.Value == 0 || c.dimension == unit.Ratio && q.Value < 1):
	case q.Dimension == unit.Scalar:
		t.add(at, "write "+shown+strings.TrimLeft(c.dimension.Example(), "0123456789")+", or give the column's unit in the header", "%s has no unit", shown)
		return 0, false
	case q.Dimension != c.dimension:
		t.add(at, "such as "+c.dimension.Example(), "%s is %s; want %s", shown, q.Dimension, c.dimension)
		return 0, false
	}
	switch {
	case q.Value < 0:
		t.add(at, "", "%s is negative", shown)
	case c.key == "time" && q.Value > maxTableTime:
		t.add(at, "", "the time %s is too late", shown)
	case c.key == "rate" && q.Value == 0:
		t.add(at, "for an outage write a loss of 100%", "a rate of 0 sends nothing")
	case c.key == "rate" && (q.Value < minRate || q.Value > maxRate):
		t.add(at, "", "the rate is not between 1kbit and 1Tbit")
	case c.key == "delay" && q.Value > maxDelay.Seconds():
		t.add(at, "", "the delay is longer than 1h")
	case c.key == "loss" && q.Value > 1:
		t.add(at, "", "the loss is more than 100%%")
	default:
		return q.Value, true
	}
	return 0, false
}
