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

// BenchmarkQdiscs makes the qdiscs of 1000 links, a tbf over a pfifo at each port, as the engine does, as
// tc does from one file, and as it does in a process for each, which twenty links are enough to tell. It leaves
// netem out, so that kernels without it can tell. Each figure is the time for one link.
func BenchmarkQdiscs(b *testing.B) {
	need.Command(b, "tc")
	need.Qdisc(b, "tbf")
	const links, forked = 1000, 20
	t, err := plan(link.Shape{Rate: 10e6, Queue: link.Queue{Packets: 100}}, nil, 0, testFrame)
	if err != nil {
		b.Fatal(err)
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
	// What tc is told for the same.
	lines := func(device string) []string {
		return []string{
			fmt.Sprintf("qdisc add dev %s root handle 10: tbf rate %d burst %db limit %db", device, t.rate.bytesPerSecond*8, t.rate.burst, t.rate.limit),
			fmt.Sprintf("qdisc replace dev %s parent 10:1 handle 20: pfifo limit %d", device, t.queue.limits()),
		}
	}
	shape := map[string]func([]netlink.Link){
		"requests": func(ports []netlink.Link) {
			var all []request
			for _, p := range ports {
				device := p.Attrs().Index
				all = append(all,
					adding().to(t.rate, position{device, handleRoot, 0x10 << 16}),
					replacing().to(t.queue, position{device, 0x10<<16 | onlyClass, 0x20 << 16}))
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
			shaped(b, requests, some, t)
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

// shaped fails unless each port has its two qdiscs.
func shaped(b *testing.B, requests *requests, ports []netlink.Link, want tree) {
	b.Helper()
	for _, p := range ports {
		s, err := requests.get(position{p.Attrs().Index, handleRoot, 0x10 << 16})
		if err != nil {
			b.Fatal(err)
		}
		var rate rateQdisc
		if err := rate.decode(s.options); err != nil || rate.bytesPerSecond != want.rate.bytesPerSecond {
			b.Fatalf("%s has %s %+v: %v", p.Attrs().Name, s.kind, rate, err)
		}
		s, err = requests.get(position{p.Attrs().Index, 0x10<<16 | onlyClass, 0})
		if err != nil {
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
