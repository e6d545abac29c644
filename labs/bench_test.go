package labs

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkExpand is the cost of a parameter point of a lab of ordinary size.
func BenchmarkExpand(b *testing.B) {
	f, err := Parse(Reference())
	if err != nil {
		b.Fatal(err)
	}
	const points = 1000
	var rtts []string
	for i := range points / 2 {
		rtts = append(rtts, fmt.Sprintf("%dms", i+1))
	}
	b.ReportAllocs()
	for b.Loop() {
		labs, err := f.Expand([]Override{{"rtt", rtts}})
		if err != nil || len(labs) != points {
			b.Fatal(len(labs), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/points, "µs/point")
}

// BenchmarkParse is the cost of a file of the largest size.
func BenchmarkParse(b *testing.B) {
	var links strings.Builder
	links.WriteString("name: large\nnodes: [a, b]\nexperiments: [{flows: [{name: up, bulk: {from: a, to: b, bytes: 1B}}]}]\nlinks:\n")
	for links.Len() < MaxFileSize-100 {
		links.WriteString("- {between: [a, b], rtt: 20ms, rate: 10Mbit, loss: 1%}\n")
	}
	src := Source{Name: "lab.yaml", Content: []byte(links.String())}
	b.SetBytes(int64(len(src.Content)))
	for b.Loop() {
		if _, err := Parse(src); err != nil {
			b.Fatal(err)
		}
	}
}
