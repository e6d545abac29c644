package observe

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tcplab/tcplab/internal/netns"
)

// ReadCounters reads the namespace's counters. It takes a fraction of a
// millisecond. A kernel without IPv6 has none of its counters.
func ReadCounters(ns *netns.Handle) (Counters, error) {
	counters := make(Counters, 500)
	err := ns.Do(func() error {
		for _, source := range []struct {
			file     string
			parse    func(io.Reader) error
			optional bool
		}{
			{"snmp", counters.parseTable, false},
			{"netstat", counters.parseTable, false},
			{"sockstat", counters.parseSockstat, false},
			{"snmp6", counters.parseList, true},
			{"sockstat6", counters.parseSockstat, true},
		} {
			// /proc/net is the main thread's namespace; this thread's is here.
			file, err := os.Open("/proc/thread-self/net/" + source.file)
			if errors.Is(err, os.ErrNotExist) && source.optional {
				continue
			}
			if err != nil {
				return err
			}
			err = source.parse(file)
			file.Close()
			if err != nil {
				return fmt.Errorf("%s: %w", file.Name(), err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the counters of %s: %w", ns.Name(), err)
	}
	return counters, nil
}
