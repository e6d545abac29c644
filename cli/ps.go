package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// psWithin bounds what a holder may take to say what it holds.
const psWithin = 2 * time.Second

func (a *app) psCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:     "ps",
		Short:   "List standing labs",
		Example: "  tcplab ps -o json",
		Args:    exactArgs(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.ps(cmd.Context(), output) },
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) ps(ctx context.Context, f format) error {
	names, err := a.standingLabs()
	if err != nil {
		return err
	}
	all := &tcplabv1.ListDeploymentsResponse{}
	for _, name := range names {
		err := a.withStanding(ctx, name, func(labs tcplabv1.LabServiceClient) error {
			ctx, cancel := context.WithTimeout(ctx, psWithin)
			defer cancel()
			held, err := labs.ListDeployments(ctx, &tcplabv1.ListDeploymentsRequest{})
			all.Deployments = append(all.Deployments, held.GetDeployments()...)
			return err
		})
		if err != nil {
			// It may just have gone; one that does not answer is no reason to hide the others.
			a.printf("tcplab: lab %s does not answer: %v\n", name, err)
		}
	}
	if f == formatJSON {
		return printMessage(a.Out, all)
	}
	if len(all.GetDeployments()) == 0 {
		a.printf("no lab stands; `tcplab up handshake` makes one\n")
		return nil
	}
	var rows [][]string
	for _, d := range all.GetDeployments() {
		rows = append(rows, []string{
			d.GetName(), d.GetLab().GetName(), enumWord(d.GetState(), "DEPLOYMENT_STATE_"),
			strconv.Itoa(len(d.GetNodes())), strconv.Itoa(len(d.GetLinks())), strings.Join(enginesOf(d), ", "),
			d.GetCreateTime().AsTime().Local().Format(time.DateTime), fmt.Sprint(d.GetHolderPid()),
		})
	}
	return printTable(a.Out, []string{"NAME", "LAB", "STATE", "NODES", "LINKS", "ENGINE", "SINCE", "PID"}, rows)
}

// enginesOf are the engines of a deployment's links, each once.
func enginesOf(d *tcplabv1.Deployment) []string {
	var words []string
	seen := make(map[tcplabv1.Engine]bool)
	for _, l := range d.GetLinks() {
		if !seen[l.GetEngine()] {
			seen[l.GetEngine()] = true
			words = append(words, engineWord(l.GetEngine()))
		}
	}
	return words
}
