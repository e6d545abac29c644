package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Choose finds the host that carries labs: the one that their nodes name (`on: host-a`), one with the labels that they
// ask for (`on: zone=a,kernel=6.18`), or, where they name none, the one with the least to do.
// Errors: HOST_UNSUPPORTED where there is none, with the reason for each.
func (f *Fleet) Choose(labs []*tcplabv1.Lab) (string, error) {
	var asked []string
	for _, lab := range labs {
		for _, node := range lab.GetNodes() {
			if on := node.GetHost(); on != "" && !slices.Contains(asked, on) {
				asked = append(asked, on)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fits := slices.Collect(maps.Values(f.hosts))
	reasons := map[string]string{}
	fits = slices.DeleteFunc(fits, func(h *host) bool {
		why := h.unfit(asked)
		if why != "" {
			reasons[h.kept.GetName()] = why
		}
		return why != ""
	})
	if len(fits) == 0 {
		return "", f.noHost(asked, reasons)
	}
	best := slices.MinFunc(fits, func(a, b *host) int {
		return cmp.Or(cmp.Compare(a.load(), b.load()), cmp.Compare(a.kept.GetName(), b.kept.GetName()))
	})
	return best.kept.GetName(), nil
}

// unfit says why a host cannot carry nodes that ask for hosts in these words; empty: it can.
func (h *host) unfit(asked []string) string {
	for _, on := range asked {
		if on == h.kept.GetName() {
			continue
		}
		if !strings.Contains(on, "=") {
			return "the lab wants " + on
		}
		for label := range strings.SplitSeq(on, ",") {
			name, value, _ := strings.Cut(label, "=")
			if h.kept.GetLabels()[name] != value {
				return "it has no label " + label
			}
		}
	}
	switch {
	case h.kept.GetDrained():
		return "it is drained"
	case h.session == nil:
		return "it is not connected"
	}
	return ""
}

// load is what a host has to do, for each of its processors.
func (h *host) load() float64 {
	return float64(len(h.uses)) / float64(max(1, h.kept.GetHost().GetCpus()))
}

// noHost says why there is none.
func (f *Fleet) noHost(asked []string, reasons map[string]string) error {
	if len(f.hosts) == 0 {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "have one join: tcplab token create, and there tcplab agent --join", "the fleet has no host")
	}
	var named []string
	for _, on := range asked {
		if !strings.Contains(on, "=") {
			if f.hosts[on] == nil {
				return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "`tcplab hosts list` lists them", "no host is called %s", on)
			}
			named = append(named, on)
		}
	}
	if len(named) > 1 {
		return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "put its nodes on one host", "the lab's nodes are on the hosts %s, and a lab stands on one host", strings.Join(named, ", "))
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(reasons)) {
		if len(named) == 0 || name == named[0] {
			words = append(words, fmt.Sprintf("%s: %s", name, reasons[name]))
		}
	}
	const few = 5
	if len(words) > few {
		words = append(words[:few], fmt.Sprintf("and %d more", len(words)-few))
	}
	return rpcerr.New(codes.FailedPrecondition, rpcerr.HostUnsupported, "`tcplab hosts list` shows them", "no host can carry the lab: %s", strings.Join(words, "; "))
}

// Use notes that something has a host, until it is released.
func (f *Fleet) Use(name, use string) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hosts[name]
	if !ok {
		return func() {}
	}
	h.uses[use] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(h.uses, use)
	}
}
