package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

func (a *app) runsWatchCommand() *cobra.Command {
	var output format
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "watch RUN",
		Short: "Show what a run samples while it runs",
		Long: `Watch shows the newest TCP_INFO of each flow of a run that is under way, a line an end, until the run has ended.
It is a view, and slows nothing down: of what was sampled since the last time it has the newest alone, and says how much it
left out. The artifact samples.parquet has everything. RUN is the run's ID, an unambiguous prefix of it, or "last".`,
		Example: `  tcplab runs watch last
  tcplab runs watch last --every 1s -o json`,
		Args: exactArgs("a run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval < 10*time.Millisecond || interval > time.Minute {
				return usageError("--every %v: want 10ms to 1m", interval)
			}
			watching, stop := context.WithCancelCause(cmd.Context())
			defer stop(nil)
			go func() {
				select {
				case <-a.Signals:
					stop(errInterrupted)
				case <-watching.Done():
				}
			}()
			err := a.withRuns(watching, func(ctx context.Context, runs tcplabv1.RunServiceClient) error {
				stream, err := runs.WatchSamples(ctx, &tcplabv1.WatchSamplesRequest{RunId: args[0], Interval: durationpb.New(interval)})
				if err != nil {
					return err
				}
				for {
					news, err := stream.Recv()
					if errors.Is(err, io.EOF) {
						return nil
					}
					if err != nil {
						return err
					}
					if err := a.printSamples(news, output); err != nil {
						return err
					}
				}
			})
			if errors.Is(context.Cause(watching), errInterrupted) {
				return errInterrupted
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&interval, "every", 500*time.Millisecond, "time between two views, 10ms to 1m")
	outputFlag(cmd, &output)
	return cmd
}

// printSamples prints one view: a message a view in JSON, else a line an end.
func (a *app) printSamples(news *tcplabv1.WatchSamplesResponse, f format) error {
	if f == formatJSON {
		return printMessage(a.Out, news)
	}
	for _, s := range news.GetSamples().GetSamples() {
		_, err := fmt.Fprintf(a.Out, "%s  trial %d  %s\n", s.GetTime().AsTime().Local().Format("15:04:05.000"), news.GetTrial(), sampleText(s))
		if err != nil {
			return err
		}
	}
	return nil
}

// sampleText is one end of a flow in a line.
func sampleText(s *tcplabv1.LiveSample) string {
	rate, way := s.GetAckedBps(), "sends"
	if s.GetReceiveBps() > rate {
		rate, way = s.GetReceiveBps(), "receives"
	}
	info := s.GetTcpInfo()
	return fmt.Sprintf("%s %s %s %s, cwnd %d, rtt %s", s.GetFlow(), s.GetEnd(), way,
		quantity(rate, "bit/s"), info.GetSndCwnd(), quantity(info.GetRtt().AsDuration().Seconds(), "s"))
}
