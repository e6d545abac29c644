package loop

import (
	"golang.org/x/sys/unix"
)

const (
	// ownFiles is what a process has open beside the connections of its flows, generously.
	ownFiles = 4096
	// manyFiles is room for two ends of 100,000 connections, and others beside.
	manyFiles = 1 << 18
)

// Room raises the limit on this process's open files (RLIMIT_NOFILE) where it is too low for
// so many descriptors of a flow, as far as the process may. Where it may not, descriptors run out
// (EMFILE), which is the flow's to tell. The limit is not lowered again.
func Room(descriptors int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= uint64(descriptors)+ownFiles {
		return nil
	}
	// Above the hard limit needs CAP_SYS_RESOURCE; up to it, nothing.
	more := unix.Rlimit{Cur: manyFiles, Max: max(limit.Max, manyFiles)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &more); err == nil {
		return nil
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}
