package expect_test

import (
	"fmt"
	"testing"

	"github.com/tcplab/tcplab/labs"
	"github.com/tcplab/tcplab/labs/expect"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// What an expectation permits stays below a quarter of the contrast that its
// lab exists to show: at each point of the lab file, at those that its reader
// is likely to try, and whatever the kernel's HZ.
func TestLabsTellTheirContrast(t *testing.T) {
	for _, info := range labs.List() {
		t.Run(info.Name, func(t *testing.T) {
			source, err := labs.Load(info.Name)
			if err != nil {
				t.Fatal(err)
			}
			file, err := labs.Parse(source)
			if err != nil {
				t.Fatal(err)
			}
			points, err := file.Expand(inFull(file))
			if err != nil {
				t.Fatal(err)
			}
			asked, told := map[string]bool{}, 0
			for _, lab := range points {
				told += contrasts(t, lab, asked)
			}
			for _, e := range points[0].GetExpectations() {
				if !asked[e.GetName()] {
					t.Errorf("%q is asked at no point of the lab", e.GetName())
				}
				if e.GetSource() == "" {
					t.Errorf("%q names no source", e.GetName())
				}
			}
			if told == 0 {
				t.Error("no expectation names what would be measured were the phenomenon absent (rival)")
			}
			for _, lab := range elsewhere(t, file) {
				contrasts(t, lab, map[string]bool{})
			}
		})
	}
}

// inFull has a lab run both as it is and, where it has a part that takes long, with that.
func inFull(file *labs.File) []labs.Override {
	for _, p := range file.Parameters() {
		if p.Name == "full" {
			return []labs.Override{{Name: "full", Values: []string{"false", "true"}}}
		}
	}
	return nil
}

// elsewhere are points that a lab's reader is likely to try.
func elsewhere(t *testing.T, file *labs.File) []*tcplabv1.Lab {
	t.Helper()
	var overrides []labs.Override
	for _, p := range file.Parameters() {
		switch p.Name {
		case "rtt":
			overrides = append(overrides, labs.Override{Name: "rtt", Values: []string{"1ms", "4.9ms", "10ms", "20ms", "39ms", "80ms", "200ms"}})
		case "rate":
			overrides = append(overrides, labs.Override{Name: "rate", Values: []string{"10Mbit", "100Mbit", "1Gbit"}})
		}
	}
	points, err := file.Expand(overrides)
	if err != nil {
		t.Fatal(err)
	}
	return points
}

// contrasts checks the expectations that apply at a point, adds them to asked,
// and returns how many of them have a rival.
func contrasts(t *testing.T, lab *tcplabv1.Lab, asked map[string]bool) (told int) {
	t.Helper()
	for _, e := range lab.GetExpectations() {
		p, err := expect.Compile(lab, e)
		if err != nil {
			t.Fatalf("%s: %v", e.GetName(), err)
		}
		applies, err := p.Applies()
		if err != nil {
			t.Fatal(err)
		}
		if !applies {
			continue
		}
		asked[e.GetName()] = true
		if e.GetRival() != "" {
			told++
		}
		for _, hz := range []uint32{100, 250, 1000} {
			if err := p.CheckContrast(&tcplabv1.Kernel{Hz: hz, Release: "6.1.0"}); err != nil {
				t.Errorf("%s, HZ %d: %v", where(lab), hz, err)
			}
		}
	}
	return told
}

func where(lab *tcplabv1.Lab) string {
	s := "at"
	for name, v := range lab.GetPoint() {
		s += fmt.Sprintf(" %s=%v", name, v.AsInterface())
	}
	return s
}
