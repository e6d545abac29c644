package netem

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/agent/link"
	"github.com/tcplab/tcplab/internal/need"
	"github.com/tcplab/tcplab/internal/netns"
)

// BenchmarkQdiscs makes the qdiscs of 1000 links, as the engine does, as tc does from one
// file, and as it does in a process for each, which twenty links are enough to tell: a tbf over a
// pfifo at each port, for kernels without netem, and with it the whole tree of a delay and a rate. Each
// figure is the time for one link.
func BenchmarkQdiscs(b *testing.B) {
	b.Run("tbf", func(b *testing.B) { benchmarkQdiscs(b, false) })
	b.Run("netem", func(b *testing.B) {
		need.Qdisc(b, "netem")
		benchmarkQdiscs(b, true)
	})
}

func benchmarkQdiscs(b *testing.B, delayed bool) {
	need.Command(b, "tc")
	need.Qdisc(b, "tbf")
	const links, forked = 1000, 20
	t, err := plan(link.Shape{Rate: 10e6, Queue: link.Queue{Packets: 100}, Delay: 10 * time.Millisecond}, nil, 0, testFrame)
	if err != nil {
		b.Fatal(err)
	}
	// What one port has, from its root, and what tc is told for the same.
	qdiscs := []qdisc{t.rate, t.queue}
	told := []string{
		fmt.Sprintf("tbf rate %d burst %db limit %db", t.rate.bytesPerSecond*8, t.rate.burst, t.rate.limit),
		fmt.Sprintf("pfifo limit %d", t.queue.limits()),
	}
	if delayed {
		qdiscs = append([]qdisc{t.delay}, qdiscs...)
		told = append([]string{fmt.Sprintf("netem limit %d delay %dus rate 1tbit", t.delay.limit, t.delay.delay.Microseconds())}, told...)
	}
	ns, err := netns.New("fabric")
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	ports := bare(b, ns, links)
	requests, err := newRequests(ns)
	if err != nil {
		b.Fatal(err)
	}
	defer requests.close()
	parent := func(level int) uint32 {
		if level == 0 {
			return handleRoot
		}
		return uint32(level)<<20 | onlyClass
	}
	lines := func(device string) (all []string) {
		for level, options := range told {
			// Below the root something stands: a tbf comes with a leaf.
			at := "qdisc add dev " + device + " root"
			if level > 0 {
				at = fmt.Sprintf("qdisc replace dev %s parent %x:1", device, parent(level)>>16)
			}
			all = append(all, fmt.Sprintf("%s handle %x: %s", at, parent(level+1)>>16, options))
		}
		return all
	}
	shape := map[string]func([]netlink.Link){
		"requests": func(ports []netlink.Link) {
			var all []request
			for _, p := range ports {
				for level, q := range qdiscs {
					how := replacing()
					if level == 0 {
						how = adding()
					}
					all = append(all, how.to(q, position{p.Attrs().Index, parent(level), parent(level+1) &^ 0xffff}))
				}
			}
			if _, err := requests.each(all...); err != nil {
				b.Fatal(err)
			}
		},
		"batch": func(ports []netlink.Link) {
			var file strings.Builder
			for _, p := range ports {
				fmt.Fprintln(&file, strings.Join(lines(p.Attrs().Name), "\n"))
			}
			tc(b, ns, file.String(), "-batch", "-")
		},
		"forks": func(ports []netlink.Link) {
			for _, p := range ports {
				for _, line := range lines(p.Attrs().Name) {
					tc(b, ns, "", strings.Fields(line)...)
				}
			}
		},
	}
	took := map[string]time.Duration{}
	for b.Loop() {
		for how, do := range shape {
			some := ports
			if how == "forks" {
				some = ports[:2*forked]
			}
			begin := time.Now()
			do(some)
			took[how] += time.Since(begin) * time.Duration(len(ports)/len(some))
			shaped(b, requests, some, t, delayed)
			var none []request
			for _, p := range some {
				r := adding().to(t.rate, position{p.Attrs().Index, handleRoot, 0})
				r.message, r.flags, r.attrs = unix.RTM_DELQDISC, 0, nil
				none = append(none, r)
			}
			if _, err := requests.each(none...); err != nil {
				b.Fatal(err)
			}
		}
	}
	for how, d := range took {
		b.ReportMetric(float64(d.Microseconds())/links/float64(b.N), how+"-µs/link")
	}
}

// bare are the ports of links, up, without anything else of the engine.
func bare(b *testing.B, ns *netns.Handle, links int) []netlink.Link {
	b.Helper()
	var ports []netlink.Link
	err := ns.Do(func() error {
		for i := range links {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.Flags = "a"+strconv.Itoa(i), 1 // IFF_UP
			attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
			veth := netlink.NewVeth(attrs)
			veth.PeerName = "b" + strconv.Itoa(i)
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
		}
		all, err := netlink.LinkList()
		for _, l := range all {
			if l.Type() == "veth" {
				ports = append(ports, l)
				if err := netlink.LinkSetUp(l); err != nil {
					return err
				}
			}
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return ports
}

// shaped fails unless each port has its qdiscs.
func shaped(b *testing.B, requests *requests, ports []netlink.Link, want tree, delayed bool) {
	b.Helper()
	for _, p := range ports {
		device, at := p.Attrs().Index, uint32(handleRoot)
		if delayed {
			s, err := requests.get(position{device, at, 0x10 << 16})
			if err != nil {
				b.Fatal(err)
			}
			var delay delayQdisc
			if err := delay.decode(s.options); err != nil || delay.delay != want.delay.delay {
				b.Fatalf("%s has %s %+v: %v", p.Attrs().Name, s.kind, delay, err)
			}
			at = 0x10<<16 | onlyClass
		}
		s, err := requests.get(position{device, at, 0})
		if err != nil {
			b.Fatal(err)
		}
		var rate rateQdisc
		if err := rate.decode(s.options); err != nil || rate.bytesPerSecond != want.rate.bytesPerSecond {
			b.Fatalf("%s has %s %+v: %v", p.Attrs().Name, s.kind, rate, err)
		}
		at = 0x10<<16 | onlyClass
		if delayed {
			at = 0x20<<16 | onlyClass
		}
		if s, err = requests.get(position{device, at, 0}); err != nil {
			b.Fatal(err)
		}
		if leaf, err := decodeLeaf(s); err != nil || !same(want.queue, leaf) {
			b.Fatalf("%s has %+v: %v", p.Attrs().Name, leaf, err)
		}
	}
}

func tc(b *testing.B, ns *netns.Handle, input string, arguments ...string) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "tc", arguments...)
	var says strings.Builder
	cmd.Stdin = strings.NewReader(input)
	cmd.Stderr = &says
	if err := ns.Do(cmd.Start); err != nil {
		b.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		b.Fatalf("tc %s: %v: %s", strings.Join(arguments, " "), err, says.String())
	}
}
