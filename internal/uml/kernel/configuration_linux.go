package kernel

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// configuration is the fragment of a kernel's configuration that guests need; what it does not name
// is off (make allnoconfig).
//
//go:embed guest.config
var configuration string

// HZ is a guest kernel's timer interrupts a second. TCP's timers go by them.
const HZ = 1000

// Hash tells kernels of one configuration from others: the first 12 hexadecimal digits of the
// SHA-256 of the configuration and the patches.
func Hash() string {
	sum := sha256.New()
	sum.Write([]byte(configuration))
	for _, p := range patches() {
		fmt.Fprintf(sum, "\x00%s\x00%s\x00%s", p.file, p.old, p.new)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12]
}

// options are the lines of the configuration that set something.
func options() []string {
	var all []string
	for line := range strings.Lines(configuration) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}

// refused is the options that are not in the configuration that make has made of them: this source does
// not know them, or something that they need is not there.
func refused(made string) []string {
	lines := slices.Collect(strings.Lines(made))
	var missing []string
	for _, option := range options() {
		if !slices.Contains(lines, option+"\n") {
			missing = append(missing, option)
		}
	}
	return missing
}
