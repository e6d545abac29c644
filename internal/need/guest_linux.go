package need

import (
	"cmp"
	"os"
	"testing"

	"github.com/tcplab/tcplab/internal/uml/kernel"
)

// GuestKernel needs a guest kernel of virtual time, built with this tcplab's configuration (tcplab kernel build),
// and returns the folder where it was found: $TCPLAB_KERNEL_DIR, or the machine's. The feature is "guest-kernel".
func GuestKernel(t testing.TB) (folder string) {
	t.Helper()
	folder = cmp.Or(os.Getenv("TCPLAB_KERNEL_DIR"), "/var/cache/tcplab/kernels")
	if _, err := kernel.Find(folder); err != nil {
		Missing(t, "guest-kernel", err.Error()+" (tcplab kernel build)")
	}
	if raceEnabled {
		Missing(t, "guest-kernel", "the race detector's shadow memory has no room in a guest: run without -race")
	}
	return folder
}
