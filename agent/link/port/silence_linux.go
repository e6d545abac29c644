package port

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tcplab/tcplab/internal/netns"
)

// setting is one of an interface's: its name below /proc/sys/net/ipv6/conf, its
// number in what the kernel tells of interfaces (include/uapi/linux/ipv6.h,
// DEVCONF_…), and its value.
type setting struct {
	name   string
	number int
	value  string
	most   int32 // what it may read back as; the least is the value
}

// quietIPv6 lists the interface settings (kernel: Documentation/networking/ip-sysctl.rst)
// under which IPv6 works with addresses that are given, and says nothing by itself.
func quietIPv6() []setting {
	const jiffy = 10 // ms, the longest that there is
	return []setting{
		{"addr_gen_mode", 47, "1", 1},       // IN6_ADDR_GEN_MODE_NONE: no link-local address of its own
		{"accept_dad", 27, "0", 0},          // no duplicate address detection: addresses serve at once
		{"dad_transmits", 6, "0", 0},        //
		{"accept_ra", 3, "0", 0},            // no address or route from others
		{"autoconf", 5, "0", 0},             //
		{"router_solicitations", 7, "0", 0}, // no question for routers
		{"ndisc_notify", 29, "0", 0},        // no announcement on a change
		// Joining an address's solicited-node group is reported (RFC 3810) and
		// cannot be kept from being; with the interval at its least all reports
		// leave within a few jiffies of the address being set, before any trial.
		{"mldv1_unsolicited_report_interval", 30, "1", jiffy},
		{"mldv2_unsolicited_report_interval", 31, "1", jiffy},
	}
}

// confIPv6 is where the settings are. It shows the namespace of the thread that looks.
const confIPv6 = "/proc/sys/net/ipv6/conf"

// Prepare has the interfaces that are yet to come into a namespace be quiet from
// their birth, so that Quiet finds nothing to do. It is for namespaces with
// many, and for none but the lab's own.
func Prepare(ns *netns.Handle) error {
	return ns.Do(func() error {
		for _, s := range quietIPv6() {
			if err := writeExisting(filepath.Join(confIPv6, "default", s.name), s.value); err != nil {
				return fmt.Errorf("quieten what comes into %s: %w", ns.Name(), err)
			}
		}
		return nil
	})
}

// silence keeps IPv6 from sending anything unasked on an interface of this
// thread's namespace, of which the kernel tells these settings. One without IPv6 has
// nothing to silence; one with settings fewer than here has a kernel without them.
func silence(name string, told []int32) error {
	for _, s := range quietIPv6() {
		if s.number >= len(told) {
			continue
		}
		least, err := strconv.Atoi(s.value)
		if err != nil {
			return err
		}
		if got := told[s.number]; got >= int32(least) && got <= s.most {
			continue
		}
		if err := writeExisting(filepath.Join(confIPv6, name, s.name), s.value); err != nil {
			return err
		}
	}
	return nil
}

// Mute switches IPv6 off in a namespace, for every interface there now or later.
// Interfaces that only pass frames on need no addresses and must not speak.
func Mute(ns *netns.Handle) error {
	return ns.Do(func() error {
		for _, scope := range []string{"all", "default"} {
			if err := writeExisting(filepath.Join(confIPv6, scope, "disable_ipv6"), "1"); err != nil {
				return fmt.Errorf("switch IPv6 off in %s: %w", ns.Name(), err)
			}
		}
		return nil
	})
}

// writeExisting writes a kernel setting; one that this kernel lacks is skipped.
func writeExisting(path, value string) error {
	// Not os.OpenFile: it would try to have the runtime poll the file.
	f, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the setting %s: %w", path, err)
	}
	_, err = unix.Write(f, []byte(value))
	if err := errors.Join(err, unix.Close(f)); err != nil {
		return fmt.Errorf("set %s to %s: %w", path, value, err)
	}
	return nil
}
