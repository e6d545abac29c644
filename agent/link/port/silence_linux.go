package port

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tcplab/tcplab/internal/netns"
)

// quietIPv6 lists the interface settings (kernel: Documentation/networking/ip-sysctl.rst)
// under which IPv6 works with addresses that are given, and says nothing by itself.
func quietIPv6() []setting {
	return []setting{
		{"addr_gen_mode", "1"},        // IN6_ADDR_GEN_MODE_NONE: no link-local address of its own
		{"accept_dad", "0"},           // no duplicate address detection: addresses serve at once
		{"dad_transmits", "0"},        //
		{"accept_ra", "0"},            // no address or route from others
		{"autoconf", "0"},             //
		{"router_solicitations", "0"}, // no question for routers
		{"ndisc_notify", "0"},         // no announcement on a change
		// Joining an address's solicited-node group is reported (RFC 3810) and
		// cannot be kept from being; with the interval at its least all reports
		// leave within a few jiffies of the address being set, before any trial.
		{"mldv1_unsolicited_report_interval", "1"},
		{"mldv2_unsolicited_report_interval", "1"},
	}
}

// setting is one of an interface's, by its name below /proc/sys/net/ipv6/conf.
type setting struct{ name, value string }

// silence keeps IPv6 from sending anything unasked on an interface of this
// thread's namespace. A kernel without IPv6, or without one of the settings, has nothing to silence.
func silence(name string) error {
	// /proc/sys/net shows the namespace of the thread that looks.
	dir := filepath.Join("/proc/sys/net/ipv6/conf", name)
	for _, s := range quietIPv6() {
		if err := writeExisting(filepath.Join(dir, s.name), s.value); err != nil {
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
			if err := writeExisting(filepath.Join("/proc/sys/net/ipv6/conf", scope, "disable_ipv6"), "1"); err != nil {
				return fmt.Errorf("switch IPv6 off in %s: %w", ns.Name(), err)
			}
		}
		return nil
	})
}

// writeExisting writes a kernel setting; one that this kernel lacks is skipped.
func writeExisting(path, value string) error {
	// Not os.WriteFile: it would ask to create the file.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the setting: %w", err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s to %s: %w", path, value, err)
	}
	return nil
}
