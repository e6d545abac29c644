package flow

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/flow/flowtest"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

// victim is set in the process that is to be killed.
const victim = "TCPLAB_FLOW_VICTIM"

// What is left after kill -9 is the kernel's to clean up, at once: a node goes
// with its last process and socket. Namespaces cannot be listed, so the test
// watches the one interface that has its peer in the node.
func TestKilledProcessLeavesNoNamespace(t *testing.T) {
	need.NetNS(t)
	for _, phase := range []string{"running", "ended"} {
		t.Run(phase, func(t *testing.T) {
			watched := flowtest.Namespace(t, "watch")
			gone, started := watchLinks(t, watched), startVictim(t, watched, phase)
			began := time.Now()
			if err := unix.Kill(started, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for left := map[string]bool{"client": true, "server": true}; len(left) > 0; {
				select {
				case name := <-gone:
					delete(left, name)
				case <-time.After(limit):
					t.Fatalf("after %s there still is the namespace of %v", limit, left)
				}
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("the namespaces went after %s", took)
			}
		})
	}
}

// watchLinks tells the names of interfaces that go.
func watchLinks(t *testing.T, ns *netns.Handle) <-chan string {
	t.Helper()
	updates, stop := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	err := ns.Do(func() error {
		return netlink.LinkSubscribe(updates, stop)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(stop) })
	gone := make(chan string, 16)
	go func() {
		for update := range updates {
			if update.Header.Type == unix.RTM_DELLINK {
				gone <- update.Attrs().Name
			}
		}
	}()
	return gone
}

// startVictim starts this test binary as the process that is to be killed and
// returns its process ID once its flow is as far as the phase says.
func startVictim(t *testing.T, watched *netns.Handle, phase string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVictim$")
	cmd.Env = append(os.Environ(), victim+"="+phase)
	fd, err := unix.FcntlInt(uintptr(watched.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "watched")
	defer file.Close()
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	var ready string
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&ready); err != nil || ready != phase {
		t.Fatalf("the process to be killed says %q: %v", ready, err)
	}
	return cmd.Process.Pid
}

// TestVictim is the process to be killed: nodes, each with an interface to the
// watched namespace, and a bulk flow whose data the link holds back.
func TestVictim(t *testing.T) {
	phase := os.Getenv(victim)
	if phase == "" {
		t.Skip("a part of TestKilledProcessLeavesNoNamespace")
	}
	cfg := nodes(t, false)
	for _, end := range []End{cfg.Client, cfg.Server} {
		err := end.NS.Do(func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "watched"
			veth := netlink.NewVeth(attrs)
			veth.PeerName, veth.PeerNamespace = end.Node, netlink.NsFd(3)
			return netlink.LinkAdd(veth)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if phase == "ended" {
		run(t, bulkBytes(1<<20), cfg)
	} else {
		seen := newSignal()
		cfg.Samples = seen
		f := listening(t, bulkFor(time.Hour), cfg)
		go f.Run(context.Background())
		seen.underWay(t)
		// Data that nobody acknowledges is what an orphan would go on sending.
		flowtest.LoseAddress(t, cfg.Server)
	}
	if err := json.NewEncoder(os.Stdout).Encode(phase); err != nil {
		t.Fatal(err)
	}
	<-t.Context().Done() // the end of the test binary, unless it is killed
}
