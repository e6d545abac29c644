package cli

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// quantity prints a measured number with four significant digits and the
// prefix that suits it: 0.0841 s is "84.1 ms".
func quantity(v float64, unit string) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	if v == 0 && unit != "" {
		return "0 " + unit
	}
	switch unit {
	case "s":
		return scaled(v, []scale{{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}, {1e-9, "ns"}})
	case "bit/s":
		return scaled(v, []scale{{1e9, "Gbit/s"}, {1e6, "Mbit/s"}, {1e3, "kbit/s"}, {1, "bit/s"}})
	case "B":
		return scaled(v, []scale{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}, {1, "B"}})
	case "":
		return significant(v)
	}
	return significant(v) + " " + unit
}

// scale is a unit with a prefix, in units without one.
type scale struct {
	size float64
	name string
}

// scaled prints v in the first of the scales, largest first, that leaves a whole part.
func scaled(v float64, scales []scale) string {
	// Rounded first, or 0.99996 s would be "1000 ms".
	if rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 3, 64), 64); err == nil {
		v = rounded
	}
	s := scales[len(scales)-1]
	for _, candidate := range scales {
		if math.Abs(v) >= candidate.size {
			s = candidate
			break
		}
	}
	return significant(v/s.size) + " " + s.name
}

// significant prints four significant digits without an exponent, and whole
// numbers whole.
func significant(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	digits := 3 - int(math.Floor(math.Log10(math.Abs(v))))
	s := strconv.FormatFloat(v, 'f', max(0, digits), 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// seconds prints a duration of the contract.
func seconds(d *durationpb.Duration) string {
	return quantity(d.AsDuration().Seconds(), "s")
}

// roughly prints a waiting time for people: "4 s", "2 min".
func roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return "under 1 s"
	case d < 90*time.Second:
		return strconv.Itoa(int(d.Round(time.Second).Seconds())) + " s"
	case d < 90*time.Minute:
		return strconv.Itoa(int(d.Round(time.Minute).Minutes())) + " min"
	default:
		return strconv.FormatFloat(d.Hours(), 'f', 1, 64) + " h"
	}
}

// about prints an estimate of a time: "about 4 s".
func about(d time.Duration) string {
	if d < time.Second {
		return roughly(d)
	}
	return "about " + roughly(d)
}

// paramNames lists the parameters that any of the points has, in order.
func paramNames(points []map[string]*structpb.Value) []string {
	seen := map[string]bool{}
	var names []string
	for _, point := range points {
		for name := range point {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	sort.Strings(names)
	return names
}

// varying drops the parameters that have the same value at every point.
func varying(names []string, points []map[string]*structpb.Value) []string {
	var out []string
	for _, name := range names {
		for _, point := range points[1:] {
			if param(point[name]) != param(points[0][name]) {
				out = append(out, name)
				break
			}
		}
	}
	return out
}

// constant lists the parameters that have the same value at every point.
func constant(points []map[string]*structpb.Value) []string {
	names := paramNames(points)
	differ := varying(names, points)
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(differ, name) })
}

// without is a parameter point without some of its parameters.
func without(point map[string]*structpb.Value, names []string) map[string]*structpb.Value {
	rest := maps.Clone(point)
	for _, name := range names {
		delete(rest, name)
	}
	return rest
}

// param prints a parameter's value as the lab file would.
func param(v *structpb.Value) string {
	if v == nil {
		return ""
	}
	if s, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		return s.StringValue
	}
	text, err := json.Marshal(v.AsInterface())
	if err != nil {
		return v.String()
	}
	return string(text)
}

// pointText prints a parameter point: "no_delay=false rtt=20ms".
func pointText(point map[string]*structpb.Value) string {
	names := paramNames([]map[string]*structpb.Value{point})
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = name + "=" + param(point[name])
	}
	return strings.Join(parts, " ")
}

// enumWord is an enum value for people: RUN_STATE_SUCCEEDED under "RUN_STATE_"
// is "succeeded".
func enumWord(value interface{ String() string }, prefix string) string {
	word := strings.ToLower(strings.TrimPrefix(value.String(), prefix))
	if word == "unspecified" {
		return "-"
	}
	return word
}

func verdictWord(v tcplabv1.Verdict) string  { return enumWord(v, "VERDICT_") }
func stateWord(s tcplabv1.RunState) string   { return enumWord(s, "RUN_STATE_") }
func engineWord(e tcplabv1.Engine) string    { return enumWord(e, "ENGINE_") }
func linkWord(v tcplabv1.LinkVerdict) string { return enumWord(v, "LINK_VERDICT_") }
func phaseWord(p tcplabv1.TrialPhase) string { return enumWord(p, "TRIAL_PHASE_") }
func kindWord(k tcplabv1.NodeKind) string    { return enumWord(k, "NODE_KIND_") }
