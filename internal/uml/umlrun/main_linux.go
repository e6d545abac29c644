// Command umlrun runs a command as root of a user-mode-linux guest and exits as
// the command did. The guest sees this machine's files and writes to its own
// memory only.
//
//	umlrun [flags] -- COMMAND [ARGUMENT…]
//	go test -exec 'bin/umlrun --' ./agent/link/netem
//
// Its own failures, the deadline among them, exit with 125 and print the end of
// the kernel's log.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tcplab/tcplab/internal/uml"
)

// failed is the exit status of umlrun's own failures, as with docker run and
// timeout(1).
const failed = 125

func main() {
	uml.Init()
	os.Exit(run())
}

func run() int {
	timeout := flag.Duration("timeout", 10*time.Minute, "kill the guest after this `time`")
	memory := flag.Int64("mem", 1024, "the guest's memory in `MiB`, the files it writes included")
	log := flag.Bool("log", false, "show what the kernel says on standard error")
	config := uml.Config{Stdout: os.Stdout, Stderr: os.Stderr}
	if oneStream() {
		config.Stderr = os.Stdout
	}
	flag.Func("writable", "a `folder` where the guest writes to this machine; may be repeated", func(folder string) error {
		folder, err := filepath.Abs(folder)
		config.Writable = append(config.Writable, folder)
		return err
	})
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: umlrun [flags] -- COMMAND [ARGUMENT…]")
		flag.PrintDefaults()
		return failed
	}
	config.Memory = *memory << 20
	if *log {
		config.Log = os.Stderr
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()

	err := uml.Run(ctx, config, flag.Args()...)
	var exit *uml.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Status
	default:
		fmt.Fprintln(os.Stderr, "umlrun:", err)
		return failed
	}
}

// oneStream tells whether standard output and standard error go to one place, as
// under go test: then they come in the order in which they were written.
func oneStream() bool {
	out, err := os.Stdout.Stat()
	if err != nil {
		return false
	}
	diagnostics, err := os.Stderr.Stat()
	return err == nil && os.SameFile(out, diagnostics)
}
