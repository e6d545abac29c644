package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Bounds of VerifyLinksRequest.limit.
const (
	minVerify = 100 * time.Millisecond
	maxVerify = 10 * time.Minute
)

func (a *app) linkVerifyCommand() *cobra.Command {
	var limit time.Duration
	var output format
	cmd := &cobra.Command{
		Use:   "verify LAB[/LINK]",
		Short: "Measure links anew, for as long as it takes",
		Long: `Verify sends probes over links that stand, as before a run but for as long as the
proof needs, and prints each direction and path: what was asked and, in brackets,
what was measured; whether that is proven; and where it is not, why. What is in
force is read back too. A rare loss, or a slow link, can need more than the second
that up and run give it.

It is for a lab at rest. Programs that use these links are disturbed by the
probes, and disturb the measurement. After it the links start anew: random
generators, numbers of packets, traces and counters, and the schedules of the
whole lab; also where it is interrupted.

Exit status: 0 nothing is wrong, though what could not be proven is said;
2 wrong usage; 4 a link is not what it should be, or the lab is being verified
or changed already; 130 interrupted.`,
		Example: `  tcplab link verify handshake
  tcplab link verify handshake/client-server --limit 2m
  tcplab link verify handshake -o json | jq .links[].reports[].verdict`,
		Args: exactArgs("a standing lab, or a link of one as LAB/LINK"),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return a.completeLinks(cmd.Context(), typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.linkVerify(cmd.Context(), args[0], limit, output)
		},
	}
	cmd.Flags().DurationVar(&limit, "limit", 30*time.Second, "most that one link may take, 100ms to 10m")
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) linkVerify(ctx context.Context, arg string, limit time.Duration, f format) error {
	lab, link, one := strings.Cut(arg, "/")
	if limit < minVerify || limit > maxVerify {
		return usageError("--limit %v: want 100ms to 10m", limit)
	}
	request := &tcplabv1.VerifyLinksRequest{Deployment: lab, Limit: durationpb.New(limit)}
	what := "the links of " + lab
	if one {
		request.Links, what = []string{link}, "link "+link+" of "+lab
	}
	ctx, interrupted, stop := a.untilInterrupted(ctx)
	defer stop()
	var verified *tcplabv1.VerifyLinksResponse
	err := a.withStanding(ctx, lab, func(labs tcplabv1.LabServiceClient) (err error) {
		done := a.paintClock("verifying "+what, fmt.Sprintf("at most %v a link", limit))
		defer done()
		verified, err = labs.VerifyLinks(ctx, request)
		return err
	})
	switch {
	case err != nil && isClosed(interrupted):
		return errInterrupted
	case err != nil:
		return err
	}
	return a.printVerified(verified, limit, f)
}

// paintClock paints what is under way with the time that it has taken, on a terminal, until done.
func (a *app) paintClock(what, bound string) (done func()) {
	if !a.Terminal {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(repaintEvery)
		defer ticker.Stop()
		for {
			a.errs.paint(ansi.Truncate(what+"  "+roughly(time.Since(began))+", "+bound, a.Width()-echo, "…"))
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		a.errs.paint("")
	}
}

// printVerified prints what was found out about links; a wrong one is an error.
func (a *app) printVerified(verified *tcplabv1.VerifyLinksResponse, limit time.Duration, f format) error {
	var table proofs
	var wrong []string
	all, unproven := 0, 0
	for _, l := range verified.GetLinks() {
		for _, r := range l.GetReports() {
			all++
			table.add(r)
			switch r.GetVerdict() {
			case tcplabv1.LinkVerdict_LINK_VERDICT_PASSED:
				continue
			case tcplabv1.LinkVerdict_LINK_VERDICT_FAILED:
				wrong = append(wrong, r.GetName()+" "+arrow(r))
			default:
				unproven++
			}
			table.explain(r)
		}
	}
	var err error
	if f == formatJSON {
		err = printMessage(a.Out, verified)
	} else {
		err = table.print(a.Out)
	}
	if err != nil {
		return fmt.Errorf("show the links: %w", err)
	}
	if unproven > 0 {
		a.printf("%d of %d could not be proven in %v; a longer --limit may do it, or a host with less to do\n", unproven, all, limit)
	}
	if len(wrong) == 0 {
		return nil
	}
	return &statusError{
		status:  exitTrial,
		message: "not what it should be: " + strings.Join(wrong, ", "),
		remedy:  "leave the lab and the host idle and verify again, or ask for what this host can carry",
	}
}
