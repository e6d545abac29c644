package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/tcplab/tcplab/labs"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) linkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "link",
		Short: "Look at, change and verify the links of standing labs",
		Example: `  tcplab link show handshake
  tcplab link set handshake/client-server forward.delay=80ms
  tcplab link verify handshake`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.linkShowCommand(), a.linkSetCommand(), a.linkVerifyCommand())
	return cmd
}

// minWatch is the least of WatchLinksRequest.interval.
const minWatch = 100 * time.Millisecond

type linkShowFlags struct {
	watch    bool
	interval time.Duration
	count    int
	output   format
}

func (a *app) linkShowCommand() *cobra.Command {
	var f linkShowFlags
	cmd := &cobra.Command{
		Use:   "show LAB[/LINK]",
		Short: "Show what links were asked, what is in force, and what they did",
		Long: `Show prints each direction of each link: the shape that was asked for, whether
what is in force, read back from the kernel or the running link, is that shape, and
frames since the lab stood: sent into the link, dropped and why, marked, and
waiting in its queue now and at most. With --watch it goes on until interrupted;
with -o json each time is one line of JSON.`,
		Example: `  tcplab link show handshake
  tcplab link show handshake/client-server -o json | jq .links[0].etag
  tcplab link show handshake --watch --interval 200ms --count 2`,
		Args: exactArgs("a standing lab, or a link of one as LAB/LINK"),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return a.completeLinks(cmd.Context(), typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.linkShow(cmd.Context(), args[0], &f) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.watch, "watch", false, "go on until interrupted")
	flags.DurationVar(&f.interval, "interval", time.Second, "between two looks with --watch, at least 100ms")
	flags.IntVar(&f.count, "count", 0, "how many looks with --watch (default: until interrupted)")
	outputFlag(cmd, &f.output)
	return cmd
}

// completeLinks completes LAB/LINK.
func (a *app) completeLinks(ctx context.Context, typed string) (found []string, _ cobra.ShellCompDirective) {
	lab, _, whole := strings.Cut(typed, "/")
	if !whole {
		names, err := a.standingLabs()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		for _, name := range names {
			found = append(found, name, name+"/")
		}
		return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	err := a.withStanding(ctx, lab, func(labs tcplabv1.LabServiceClient) error {
		got, err := labs.ListLinks(ctx, &tcplabv1.ListLinksRequest{Deployment: lab})
		for _, l := range got.GetLinks() {
			found = append(found, lab+"/"+l.GetName())
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) linkShow(ctx context.Context, arg string, f *linkShowFlags) error {
	lab, link, one := strings.Cut(arg, "/")
	request := &tcplabv1.WatchLinksRequest{Deployment: lab, Interval: durationpb.New(f.interval)}
	if one {
		request.Links = []string{link}
	}
	switch {
	case f.interval < minWatch || f.interval > time.Hour:
		return usageError("--interval %v: want 100ms to 1h", f.interval)
	case f.count < 0 || f.count > 0 && !f.watch:
		return usageError("--count %d: want a number above 0, with --watch", f.count)
	}
	looks := f.count
	if !f.watch {
		looks = 1
	}
	ctx, interrupted, stop := a.untilInterrupted(ctx)
	defer stop()
	return a.withStanding(ctx, lab, func(labs tcplabv1.LabServiceClient) error {
		stream, err := labs.WatchLinks(ctx, request)
		if err != nil {
			return err
		}
		show := a.newLinkView(f)
		defer show.close()
		for seen := 0; looks == 0 || seen < looks; seen++ {
			now, err := stream.Recv()
			switch {
			case err != nil && isClosed(interrupted):
				return nil // there is no other end to it
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			}
			if err := show.print(now); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *app) linkSetCommand() *cobra.Command {
	var etag string
	var output format
	cmd := &cobra.Command{
		Use:   "set LAB/LINK KEY=VALUE...",
		Short: "Change a link while traffic flows",
		Long: `Set changes what a link does, without losing a packet: all that is given, in both
directions, or nothing. Keys and values are those of a link in a lab file:
forward.delay=80ms for one direction, delay=80ms for both, and rate= without a
value for none. A queue that the lab did not give follows rate and delay.

The change is for the link as it is: where somebody else changes it between the
look and the change, that is told and nothing is done. With --etag, as link show
-o json has it, the link must still be as it was then.

Exit status: 0 it is in force, and read back; 2 wrong usage or value; 3 this host
cannot do it; 4 the link is not what it was, or its engine cannot change it so.`,
		Example: `  tcplab link set handshake/client-server forward.delay=80ms backward.rate=5Mbit
  tcplab link set handshake/client-server rtt=100ms loss=1%
  tcplab link set handshake/client-server rate= -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || strings.Count(args[0], "/") != 1 {
				return usageError("`%s` takes a link as LAB/LINK and what to change, such as delay=80ms; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeLinks(cmd.Context(), typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, link, _ := strings.Cut(args[0], "/")
			return a.linkSet(cmd.Context(), lab, link, args[1:], etag, output)
		},
	}
	cmd.Flags().StringVar(&etag, "etag", "", "change it only as long as it is as this says")
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) linkSet(ctx context.Context, lab, link string, settings []string, etag string, f format) error {
	change, err := labs.ParseChange(settings)
	if err != nil {
		return err
	}
	return a.withStanding(ctx, lab, func(labs tcplabv1.LabServiceClient) error {
		before, err := labs.GetLink(ctx, &tcplabv1.GetLinkRequest{Deployment: lab, Link: link})
		if err != nil {
			return err
		}
		if etag == "" {
			etag = before.GetLink().GetEtag()
		}
		after, err := labs.UpdateLink(ctx, &tcplabv1.UpdateLinkRequest{
			Deployment: lab,
			Link:       &tcplabv1.DeployedLink{Name: link, Forward: change.Forward, Backward: change.Backward, Etag: etag},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: change.Paths},
		})
		if err != nil {
			return err
		}
		if f == formatJSON {
			return printMessage(a.Out, after.GetLink())
		}
		return a.printChange(before.GetLink(), after.GetLink())
	})
}

// printChange prints what is in force now beside what was.
func (a *app) printChange(before, after *tcplabv1.DeployedLink) error {
	var rows [][]string
	for i, r := range after.GetReports() {
		was := ""
		if i < len(before.GetReports()) {
			was = shapeText(before.GetReports()[i].GetSpec())
		}
		now := shapeText(r.GetApplied())
		if was == now {
			now = "unchanged"
		}
		rows = append(rows, []string{after.GetName() + " " + arrow(r), was, now})
	}
	if err := printTable(a.Out, []string{"LINK", "BEFORE", "IN FORCE NOW"}, rows); err != nil {
		return fmt.Errorf("show the change: %w", err)
	}
	return nil
}
