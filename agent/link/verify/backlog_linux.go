package verify

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// backlogDrops is how many frames this kernel has thrown away since it started because a
// processor had no room for what a veth handed it (net.core.netdev_max_backlog): the second
// column of /proc/net/softnet_stat (net/core/net-procfs.c), over all processors. No link counts
// them, and they are no link's loss.
func backlogDrops() (uint64, error) {
	content, err := os.ReadFile("/proc/thread-self/net/softnet_stat")
	if err != nil {
		return 0, fmt.Errorf("read what processors had no room for: %w", err)
	}
	return parseBacklogDrops(string(content))
}

func parseBacklogDrops(content string) (sum uint64, err error) {
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return 0, fmt.Errorf("read what processors had no room for: a line %q", strings.TrimSpace(line))
		}
		n, err := strconv.ParseUint(fields[1], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("read what processors had no room for: %w", err)
		}
		sum += n
	}
	return sum, nil
}
