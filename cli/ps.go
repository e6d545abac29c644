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
	remote, err := a.openContext(ctx)
	if err != nil {
		return err
	}
	if remote != nil {
		defer remote.closeQuietly()
		all := &tcplabv1.ListDeploymentsResponse{}
		for token := ""; ; {
			page, err := remote.labs.ListDeployments(ctx, &tcplabv1.ListDeploymentsRequest{PageToken: token})
			if err != nil {
				return err
			}
			all.Deployments = append(all.Deployments, page.GetDeployments()...)
			if token = page.GetNextPageToken(); token == "" {
				return a.printDeployments(all, f)
			}
		}
	}
	names, err := a.standingLabsHere()
	if err != nil {
		return err
	}
	all := &tcplabv1.ListDeploymentsResponse{}
	for _, name := range names {
		err := a.withStandingHere(ctx, name, func(labs tcplabv1.LabServiceClient) error {
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
	return a.printDeployments(all, f)
}

func (a *app) printDeployments(all *tcplabv1.ListDeploymentsResponse, f format) error {
	if f == formatJSON {
		return printMessage(a.Out, all)
	}
	if len(all.GetDeployments()) == 0 {
		a.printf("no lab stands; `tcplab up handshake` makes one\n")
		return nil
	}
	held := "PID"
	var rows [][]string
	for _, d := range all.GetDeployments() {
		holder := fmt.Sprint(d.GetHolderPid())
		if d.GetHost() != "" {
			held, holder = "HOST", d.GetHost()
		}
		rows = append(rows, []string{
			d.GetName(), d.GetLab().GetName(), enumWord(d.GetState(), "DEPLOYMENT_STATE_"),
			strconv.Itoa(len(d.GetNodes())), strconv.Itoa(len(d.GetLinks())), strings.Join(enginesOf(d), ", "),
			d.GetCreateTime().AsTime().Local().Format(time.DateTime), holder,
		})
	}
	return printTable(a.Out, []string{"NAME", "LAB", "STATE", "NODES", "LINKS", "ENGINE", "SINCE", held}, rows)
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
