package main

import (
	"context"
	"fmt"
	"strings"
)

// fleetArea is many hosts: a controller, agents, and the trust between them.
func fleetArea() Area {
	// Each is a test against the real programs, or a real controller over TCP and TLS.
	check := func(name, pkg, pattern string) Check {
		return Check{Name: name, Run: func(ctx context.Context, b *Bench) (string, error) {
			n, err := b.tested(ctx, "-run", "^("+pattern+")$", pkg)
			return fmt.Sprintf("%d cases", n), err
		}}
	}
	const fleet, controller = "./tests/fleet", "./controller"
	return Area{Name: "fleet", Checks: []Check{
		check("namespaces as hosts, an agent process on each, a controller process: run, up, ps, exec, link, down as on one machine", fleet, "TestCommands"),
		check("a host that vanishes is found on both sides within 10 s, and comes back", fleet, "TestHalfOpen"),
		check("kill -9 of the controller: the next one takes up its run where the agent is", fleet, "TestControllerKilled"),
		check("a host cut off while a trial runs carries it out, and the result arrives", fleet, "TestCutWhileRunning"),
		check("kill -9 of an agent: the run says so, and the next goes well", fleet, "TestAgentKilled"),
		check("an agent that cannot reach its controller tries again with full jitter; pings and probes fit together", "./internal/tunnel", "TestFullJitter|TestPingsAreNoAbuse|TestDeadWithin"),
		check("one token lets one in, however many try at a time", "./controller/store", "TestEnrolTogether|TestThenIsInOrder"),
		{Name: "soak: ten minutes of kill -9, cuts and full disks while runs go on", Run: soak},
		check("every method of every service has a rule", controller, "TestRulesCoverTheServices"),
		check("tokens: wrong, used, expired, deleted, another controller's, another name's, guessed", controller, "TestTokens|TestTokenExpires|TestBruteForce"),
		check("callers: another authority's, a foreign controller, an agent, a viewer with an operator's method", controller, "TestWrongCallers|TestForeignController"),
		check("agents: a user, one that nobody let in, one of another authority, an older start", controller, "TestWrongAgents|TestFencing"),
		check("a user posing as controller to a listening agent", "./controller/access", "TestListen"),
		check("revocation ends streams, and the name's old certificate", controller, "TestRevocation"),
		check("1,000 connections that say nothing", controller, "TestSilentConnections"),
		check("messages over their size, and compressed ones", controller, "TestBigMessages"),
	}}
}

// soak runs tests/soak; its schedule is printed where it fails.
func soak(ctx context.Context, b *Bench) (string, error) {
	result, err := b.Exec(ctx, "go", "run", "./tests/soak", "-tcplab", b.Tcplab, "-duration", "10m")
	if err == nil && result.Status != 0 {
		err = fmt.Errorf("exit status %d: %s%s", result.Status, result.Stdout, result.Stderr)
	}
	_, summary, _ := strings.Cut(result.Stdout, "\n\n")
	return strings.Join(strings.Fields(summary), " "), err
}
