package nic

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/tcplab/tcplab/agent/guard"
	"github.com/tcplab/tcplab/internal/netns"
)

// asWatchdog has the test's own program be the watchdog.
const asWatchdog = "TCPLAB_TEST_WATCHDOG"

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(asWatchdog) != "":
		err = beWatchdog()
	case os.Getenv(asAgent) != "":
		err = beAgent(os.Args[1:])
	default:
		goleak.VerifyTestMain(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// watchdog is the command of the watchdog for tests.
func watchdog(t testing.TB) guard.WatchdogOptions {
	t.Helper()
	return guard.WatchdogOptions{Command: []string{"/proc/self/exe"}, Env: append(os.Environ(), asWatchdog+"=1"), Stderr: os.Stderr}
}

func beWatchdog() error {
	space, err := netns.Current()
	if err != nil {
		return err
	}
	defer space.Close()
	return Watch(os.Args[1:], space, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}
