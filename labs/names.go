package labs

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// maxNames is how many nodes a range may stand for: as many as a lab may have.
const maxNames = 4096

// rangeOfNames finds "[1-10]" in a name.
var rangeOfNames = regexp.MustCompile(`\[([0-9]{1,9})-([0-9]{1,9})\]`)

// indexed is one name of a range, with the index by which it differs from the
// others; a name without a range has none.
type indexed struct {
	name, index string
}

// namesOf are the names that "client[1-10]" stands for; any other name stands
// for itself. A first number with leading zeros gives all numbers as many digits. What
// is wrong is reported at the place, and no names are returned.
func (r *report) namesOf(at position, s string) []indexed {
	where := rangeOfNames.FindStringSubmatchIndex(s)
	if where == nil {
		if strings.ContainsAny(s, "[]") {
			r.add(at, "such as client[1-10]", "%q holds no range of numbers", s)
			return nil
		}
		return []indexed{{name: s}}
	}
	before, after := s[:where[0]], s[where[1]:]
	first, last := s[where[2]:where[3]], s[where[4]:where[5]]
	from, _ := strconv.Atoi(first) // digits, few enough
	to, _ := strconv.Atoi(last)
	switch {
	case strings.ContainsAny(after, "[]"):
		r.add(at, "make two of it", "%q has more than one range", s)
		return nil
	case to < from:
		r.add(at, fmt.Sprintf("such as %s[%s-%s]%s", before, last, first, after), "the range of %q runs backwards", s)
		return nil
	case to-from >= maxNames:
		r.add(at, "", "%q stands for %d names, more than %d", s, to-from+1, maxNames)
		return nil
	}
	width := 0
	if strings.HasPrefix(first, "0") {
		width = len(first)
	}
	names := make([]indexed, 0, to-from+1)
	for i := from; i <= to; i++ {
		index := fmt.Sprintf("%0*d", width, i)
		names = append(names, indexed{name: before + index + after, index: index})
	}
	return names
}

// couple is two names that belong together: the ends of a link or of a flow.
type couple struct {
	a, b  string
	index string // empty where there is but one couple
}

// couples joins the names of two ranges: equal ones pair up, and a single node
// goes with each of a range.
func (r *report) couples(at position, what, first, second string, atFirst, atSecond position) []couple {
	as, bs := r.namesOf(atFirst, first), r.namesOf(atSecond, second)
	if as == nil || bs == nil {
		return nil
	}
	if len(as) != len(bs) && len(as) != 1 && len(bs) != 1 {
		r.add(at, "ranges of one length pair up, and a single node goes with each of a range",
			"%s joins %q, which is %d nodes, with %q, which is %d", what, first, len(as), second, len(bs))
		return nil
	}
	out := make([]couple, max(len(as), len(bs)))
	for i := range out {
		a, b := as[min(i, len(as)-1)], bs[min(i, len(bs)-1)]
		out[i] = couple{a: a.name, b: b.name, index: a.index}
		if len(as) == 1 {
			out[i].index = b.index
		}
		if len(out) == 1 {
			out[i].index = ""
		}
	}
	return out
}
