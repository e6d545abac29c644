// Package need states what a test needs from the machine it runs on: a
// privilege, a kernel feature, a program. A test that needs what is not there
// is skipped, and the skip names the feature; where the environment variable
// TCPLAB_REQUIRE lists that feature, the test fails instead. A continuous
// integration that knows what its kernel has says so, and no test is lost
// unseen.
//
// Every probe tries the thing itself, in a namespace of its own where it
// changes anything. The package refuses to guess from versions or from
// configuration.
package need

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Require is the environment variable with the features that must exist, by
// name, separated by commas: "netns,tun,netem".
const Require = "TCPLAB_REQUIRE"

// Root needs the effective user 0, of a user namespace at least. The feature is
// "root".
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root", "the test runs as an ordinary user")
	}
}

// Command needs a program in PATH and returns where it is. The feature is the
// program's name.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name, err.Error())
	}
	return path
}

// Missing skips the test, or fails it where the feature must exist: for what a test
// finds out about its machine by itself.
func Missing(t testing.TB, feature, reason string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv(Require), ","), feature) {
		t.Fatalf("this machine must have %s (%s): %s", feature, Require, reason)
	} else {
		t.Skipf("needs %s: %s", feature, reason)
	}
}
