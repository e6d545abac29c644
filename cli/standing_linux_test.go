package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tcplab/tcplab/internal/need"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// bareLab has nothing to run and nothing to shape.
const bareLab = `name: bare
nodes: [client, server]
links:
  - between: [client, server]
`

// shapedLab has a link that can be changed.
const shapedLab = `name: shaped
nodes: [client, server]
links:
  - between: [client, server]
    delay: 5ms
    rate: 100Mbit
    queue: 1000 # room for what a shorter delay lets go at once
    engine: wire
`

// stand makes a lab stand until the test ends.
func stand(t *testing.T, s setting, lab string) *tcplabv1.Deployment {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { downAll(t, program, filepath.Join(s.state, "run")) })
	stdout, _ := s.start(t, "up", labFile(t, "lab", lab), "-o", "json").end(t, exitOK)
	d := &tcplabv1.Deployment{}
	if err := protojson.Unmarshal([]byte(stdout), d); err != nil {
		t.Fatal(err)
	}
	return d
}

// sleepers starts programs that would outlive their parents if they could, in a node, and
// returns once they run. They have mark in their environment.
func sleepers(t *testing.T, s setting, lab, mark string) *process {
	t.Helper()
	p := s.start(t, "exec", "--env", mark, lab, "client", "--",
		"sh", "-c", `for i in 1 2; do setsid sh -c 'trap "" TERM HUP INT; sleep 1000' >/dev/null 2>&1 & done; echo ready >&2; sleep 1000`)
	p.await(t, "^ready$")
	eventually(t, "all of them run", func() bool { return len(marked(t, mark)) >= 5 })
	return p
}

// marked lists the processes with the variable in their environment.
func marked(t *testing.T, variable string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, file := range files {
		if content, err := os.ReadFile(file); err == nil && bytes.Contains(content, []byte(variable)) {
			all = append(all, file)
		}
	}
	return all
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("after %v it is not so that %s", patience, what)
		case <-tick.C:
		}
	}
	return time.Since(start)
}

// watchNode puts one end of a veth into a node, and reports whether it is still there: what
// has ended a namespace has removed it.
func watchNode(t *testing.T, node *tcplabv1.DeployedNode) (stands func() bool) {
	t.Helper()
	inside, err := vnetns.GetFromPath(node.GetNetnsPath())
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "watch" + strconv.Itoa(os.Getpid()%1e6)
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "watched", netlink.NsFd(int(inside))
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if link, err := netlink.LinkByName(attrs.Name); err == nil {
			_ = netlink.LinkDel(link)
		}
	})
	return func() bool {
		_, err := netlink.LinkByName(attrs.Name)
		return err == nil
	}
}

// A holder that is killed takes everything with it: programs, namespaces, interfaces. What is left of it
// on disk goes at the next look.
func TestKilledHolder(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	s := setting{state: t.TempDir()}
	d := stand(t, s, bareLab)
	mark := "TCPLAB_TEST_MARK=" + s.state
	client := sleepers(t, s, "bare", mark)
	stands := watchNode(t, d.GetNodes()[0])
	if err := syscall.Kill(int(d.GetHolderPid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, "nothing is left", func() bool { return !stands() && len(marked(t, mark)) == 0 })
	t.Logf("nothing was left %v after the kill", took)
	if _, stderr := client.end(t, exitTrial); !strings.Contains(stderr, "tcplab: ") {
		t.Errorf("the program's client says %q", stderr)
	}
	folder := filepath.Join(s.state, "run", "bare")
	if _, err := os.Stat(folder); err != nil {
		t.Errorf("what is to be swept: %v", err)
	}
	if stdout, stderr := s.start(t, "ps").end(t, exitOK); stdout != "" || !strings.Contains(stderr, "no lab stands") {
		t.Errorf("ps says %q and %q", stdout, stderr)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder of a dead holder is left: %v", err)
	}
	stand(t, s, bareLab) // its name is free
}

// A client that is killed takes its program with it, and nothing else.
func TestKilledClient(t *testing.T) {
	need.NetNS(t)
	s := setting{state: t.TempDir()}
	stand(t, s, bareLab)
	mark := "TCPLAB_TEST_MARK=" + s.state
	client := sleepers(t, s, "bare", mark)
	if err := client.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = client.cmd.Wait() // it was killed
	took := eventually(t, "no program is left", func() bool { return len(marked(t, mark)) == 0 })
	t.Logf("no program was left %v after the kill", took)
	s.start(t, "exec", "bare", "client", "--", "true").end(t, exitOK)
}

// Down ends programs that would not end, and a holder that does not answer, all within a second.
func TestDownIsQuick(t *testing.T) {
	need.NetNS(t)
	for name, stuck := range map[string]bool{"asked": false, "stopped holder": true} {
		t.Run(name, func(t *testing.T) {
			s := setting{state: t.TempDir()}
			d := stand(t, s, bareLab)
			mark := "TCPLAB_TEST_MARK=" + s.state
			client := sleepers(t, s, "bare", mark)
			if stuck {
				if err := syscall.Kill(int(d.GetHolderPid()), syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			s.start(t, "down", "bare").end(t, exitOK)
			eventually(t, "nothing is left", func() bool { return len(marked(t, mark)) == 0 })
			t.Logf("down took %v", time.Since(began))
			client.end(t, exitTrial)
			if entries, err := filepath.Glob(filepath.Join(s.state, "run", "[a-z]*")); err != nil || len(entries) > 0 {
				t.Errorf("%v are left, %v", entries, err)
			}
		})
	}
}

// A signal ends a holder in order, and an interrupted up leaves nothing.
func TestSignals(t *testing.T) {
	need.NetNS(t)
	need.TUN(t)
	s := setting{state: t.TempDir()}
	d := stand(t, s, bareLab)
	if err := syscall.Kill(int(d.GetHolderPid()), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(s.state, "run")
	empty := func() bool {
		entries, err := filepath.Glob(filepath.Join(run, "[a-z]*"))
		return err == nil && len(entries) == 0
	}
	eventually(t, "the holder has ended and swept its folder", empty)

	// Its links are verified for a while.
	p := s.start(t, "up", labFile(t, "shaped", shapedLab))
	eventually(t, "a holder listens", func() bool {
		_, err := os.Stat(filepath.Join(run, "shaped", socketName))
		return err == nil
	})
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.end(t, exitInterrupted)
	if !empty() {
		t.Error("an interrupted up has left something")
	}
	// Killed, it cannot clean up: its holder does.
	p = s.start(t, "up", labFile(t, "shaped", shapedLab))
	eventually(t, "a holder listens", func() bool {
		_, err := os.Stat(filepath.Join(run, "shaped", socketName))
		return err == nil
	})
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
	eventually(t, "the holder of a killed up has ended", empty)
}

// An ordinary user's labs stand in user namespaces.
func TestOrdinaryUserStands(t *testing.T) {
	need.UserNS(t)
	s := setting{state: t.TempDir(), attr: asUser(1000)}
	stdout, _ := s.start(t, "up", labFile(t, "bare", bareLab)).end(t, exitOK)
	if !strings.HasPrefix(stdout, "bare stands: 2 nodes, 1 link\n") {
		t.Errorf("up says %q", stdout)
	}
	stdout, _ = s.start(t, "exec", "bare", "client", "--", "sh", "-c", "hostname; ls /sys/class/net; getent hosts server | wc -l").end(t, exitOK)
	if stdout != "client\neth0\nlo\n1\n" {
		t.Errorf("in the node there is %q", stdout)
	}
	s.start(t, "exec", "bare", "client", "--", "sh", "-c", "exit 9").end(t, 9)
	s.start(t, "down", "bare").end(t, exitOK)
}

// On a terminal a program has one: its size, Ctrl-C, and its exit status.
func TestExecOnTerminal(t *testing.T) {
	need.NetNS(t)
	script := need.Command(t, "script")
	s := setting{state: t.TempDir()}
	stand(t, s, bareLab)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, "-qec",
		program+` exec bare client -- sh -c 'stty size; trap "echo caught; exit 11" INT; echo ready; while :; do sleep 0.01; done'`, "/dev/null")
	cmd.Env = append(storyEnv(), stateDirVar+"="+s.state, runtimeDirVar+"="+filepath.Join(s.state, "run"), "SHELL=/bin/sh")
	typed, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	buffer := make([]byte, 1024)
	for interrupted := false; ; {
		n, err := out.Read(buffer)
		seen.Write(buffer[:n])
		if !interrupted && strings.Contains(seen.String(), "ready") {
			interrupted = true
			if _, err := typed.Write([]byte{3}); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 11 || !strings.Contains(seen.String(), "caught") || !strings.Contains(seen.String(), "24 80") {
		t.Errorf("exit status %d after %q", got, &seen)
	}
}

// A link that something has slowed down since it was proven is found out: exit status 4, with both figures,
// and the lab stands on.
func TestVerifyFindsWrongLink(t *testing.T) {
	need.Root(t)
	need.TUN(t)
	s := setting{state: t.TempDir()}
	d := stand(t, s, shapedLab)
	s.start(t, "link", "verify", "shaped").end(t, exitOK)
	inside, err := vnetns.GetFromPath(d.GetNodes()[0].GetNetnsPath())
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	node, err := netlink.NewHandleAt(inside)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	port, err := node.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := node.QdiscReplace(&netlink.Tbf{ // a TAP has a queue of ours already
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: port.Attrs().Index, Handle: netlink.MakeHandle(7, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       20e6 / 8, Buffer: 30000, Limit: 10 << 20,
	}); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := s.start(t, "link", "verify", "shaped/client-server").end(t, exitTrial)
	for _, want := range []string{`client-server → .* failed\n`, `client-server ← .* passed\n`, `  client-server →: .*rate: asked 100 Mbit/s`} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("no %s in\n%s", want, stdout)
		}
	}
	if !strings.Contains(stderr, "tcplab: not what it should be: client-server →\n  to do: ") {
		t.Errorf("it says %q", stderr)
	}
	stdout, _ = s.start(t, "link", "verify", "shaped", "-o", "json").end(t, exitTrial)
	found := &tcplabv1.VerifyLinksResponse{}
	if err := protojson.Unmarshal([]byte(stdout), found); err != nil || found.GetLinks()[0].GetReports()[0].GetVerdict() != tcplabv1.LinkVerdict_LINK_VERDICT_FAILED {
		t.Errorf("in JSON it is %v, %v", found, err)
	}
}

// A change of a link costs no packet: what iperf3 sends over it while it is changed again and
// again comes out, all of it. When a delay gets shorter, all that was held comes at once: no more of it
// than iperf3's receive buffer takes (208 KiB, some 90 of these).
func TestChangeLosesNothing(t *testing.T) {
	need.TUN(t)
	need.Command(t, "iperf3")
	s := setting{state: t.TempDir()}
	stand(t, s, shapedLab)
	server := s.start(t, "exec", "shaped", "server", "--", "sh", "-c", "iperf3 -s -1 --forceflush >&2")
	server.await(t, "Server listening")
	client := s.start(t, "exec", "shaped", "client", "--", "iperf3", "-u", "-c", "server", "-b", "10M", "-l", "1200", "-t", "3", "-J")
	sent := func() uint64 {
		stdout, _ := s.start(t, "link", "show", "shaped", "-o", "json").end(t, exitOK)
		links := &tcplabv1.ListLinksResponse{}
		if err := protojson.Unmarshal([]byte(stdout), links); err != nil {
			t.Fatal(err)
		}
		return links.GetLinks()[0].GetReports()[0].GetCounters().GetReceived()
	}
	eventually(t, "traffic flows", func() bool { return sent() > 200 })
	changes := [][]string{
		{"forward.delay=40ms", "backward.rate=50Mbit"},
		{"rtt=2ms"},
		{"forward.rate=30Mbit"},
		{"forward.delay=20ms", "backward.loss=0"},
		{"rate=200Mbit"},
		{"delay=1ms"},
	}
	before := sent()
	for _, change := range changes {
		s.start(t, append([]string{"link", "set", "shaped/client-server"}, change...)...).end(t, exitOK)
	}
	if now := sent(); now <= before {
		t.Errorf("nothing was sent while the link was changed: %d frames before, %d after", before, now)
	}
	stdout, _ := client.end(t, exitOK)
	server.end(t, exitOK)
	var result struct {
		End struct {
			Sum struct {
				LostPackets *int `json:"lost_packets"`
				Packets     int  `json:"packets"`
			} `json:"sum"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(stdout), &result); err != nil {
		t.Fatal(err)
	}
	lost := result.End.Sum.LostPackets
	if lost == nil || *lost != 0 || result.End.Sum.Packets < 2500 {
		t.Errorf("iperf3 lost %v of %d packets\n%s", lost, result.End.Sum.Packets, stdout)
	} else {
		t.Logf("%d changes under %d packets lost none", len(changes), result.End.Sum.Packets)
	}
	if stdout, _ := s.start(t, "link", "show", "shaped").end(t, exitOK); strings.Count(stdout, " that ") != 2 {
		t.Errorf("what is in force is not what was asked:\n%s", stdout)
	}
}
