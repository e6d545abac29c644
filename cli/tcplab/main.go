// Command tcplab declares, builds and measures TCP labs. Package cli says how
// it is used.
package main

import (
	"os"

	"github.com/tcplab/tcplab/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Process()))
}
