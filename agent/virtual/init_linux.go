package virtual

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tcplab/tcplab/agent"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// initArg tells this program that it is the init of a guest.
const initArg = "tcplab-guest-init"

// How many of the guest's threads may run Go at once: rights, and so many for each flow; see guestParams.
const (
	rights        = 8
	rightsPerFlow = 4
)

// IsGuest reports whether this process is the init of a guest, and has to call Guest.
func IsGuest() bool {
	return os.Getpid() == 1 && len(os.Args) >= 3 && os.Args[1] == initArg
}

// Guest is the guest's part: it carries out the trial that stands in the folder, and powers the guest
// off. It returns only where that fails, which makes the kernel panic and the guest end.
func Guest() (status int) {
	dir := os.Args[2]
	if err := carryOut(dir); err != nil {
		fmt.Fprintln(os.Stderr, "tcplab:", err) // the console, whose end is told with the guest's
	}
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Fprintln(os.Stderr, "tcplab: power off:", err)
	return 1
}

// carryOut makes the guest fit to live in and runs the trial. An error that it could tell
// is none.
func carryOut(dir string) error {
	if err := furnish(dir); err != nil {
		return err
	}
	to, err := openReport(dir)
	if err != nil {
		return err
	}
	go answer(to)
	content, err := os.ReadFile(filepath.Join(dir, requestFile))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	var request tcplabv1.GuestRequest
	if err := proto.Unmarshal(content, &request); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if err := runTrial(dir, &request, to); err != nil {
		told, _ := grpcstatus.FromError(rpcerr.From(err))
		content, encodeErr := proto.Marshal(told.Proto())
		if encodeErr != nil {
			return err
		}
		return to.tell(&tcplabv1.GuestEvent{Event: &tcplabv1.GuestEvent_Failed{Failed: content}})
	}
	return nil
}

// runTrial has an agent build the lab, prove it and run it, and reports each step.
func runTrial(dir string, request *tcplabv1.GuestRequest, to *report) error {
	flows := 0
	for _, e := range request.GetLab().GetExperiments() {
		flows = max(flows, len(e.GetFlows()))
	}
	// See guestParams.
	runtime.GOMAXPROCS(rights + rightsPerFlow*flows)
	return agent.Once(context.Background(), agent.Config{
		SpoolDir: filepath.Join(dir, spoolDir), DiscardSpool: true, JournalDir: filepath.Join(dir, journalDir),
		HostName: "guest", Still: request.GetTime() == tcplabv1.TimeMode_TIME_MODE_VIRTUAL,
		// The state directory, in which the folder of guests is.
		Private: []string{filepath.Dir(filepath.Dir(dir))},
	}, request, agent.Steps{
		Applied: func(r *tcplabv1.ApplyResponse) error {
			return to.tell(&tcplabv1.GuestEvent{Event: &tcplabv1.GuestEvent_Applied{Applied: r}})
		},
		Verified: func(r *tcplabv1.VerifyResponse) error {
			return to.tell(&tcplabv1.GuestEvent{Event: &tcplabv1.GuestEvent_Verified{Verified: r}})
		},
		Happened: func(r *tcplabv1.WatchTrialResponse) error {
			return to.tell(&tcplabv1.GuestEvent{Event: &tcplabv1.GuestEvent_Trial{Trial: r}})
		},
	})
}

// wrong reports whether a link is not what it should be: then no trial is run.
func wrong(v *tcplabv1.VerifyResponse) bool {
	for _, l := range v.GetLinks() {
		if l.GetVerdict() == tcplabv1.LinkVerdict_LINK_VERDICT_FAILED {
			return true
		}
	}
	return false
}
