package cli

import "github.com/tcplab/tcplab/agent"

// watchdog is the command line of the agent's watchdog: this same program.
func watchdog() []string { return []string{"/proc/self/exe", watchdogName} }

// watch is the watchdog's work.
func (a *app) watch(args []string) error { return agent.Watch(args, a.log) }
