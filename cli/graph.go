package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tcplab/tcplab/labs"
	"github.com/tcplab/tcplab/labs/draw"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// graphFormat is the form of a drawing.
type graphFormat string

const (
	graphText graphFormat = "text"
	graphSVG  graphFormat = "svg"
)

// String is the flag's value.
func (f *graphFormat) String() string { return string(*f) }

// Type names the value in help.
func (f *graphFormat) Type() string { return "format" }

// Set parses the flag.
func (f *graphFormat) Set(s string) error {
	switch graphFormat(s) {
	case graphText, graphSVG:
		*f = graphFormat(s)
		return nil
	}
	return fmt.Errorf("want text or svg")
}

// graphFlag adds -o to a command that draws.
func graphFlag(cmd *cobra.Command, f *graphFormat) {
	*f = graphText
	cmd.Flags().VarP(f, "output", "o", "form of the drawing: text or svg")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "svg"}, cobra.ShellCompDirectiveNoFileComp))
}

// drawLab draws the topology of a lab file at its first parameter point, with the
// addresses that a host without any routes would give it.
func (a *app) drawLab(source labs.Source, set []string, form graphFormat) error {
	overrides, err := parseOverrides(set)
	if err != nil {
		return err
	}
	file, err := labs.Parse(source)
	if err != nil {
		return err
	}
	points, err := file.Expand(overrides)
	if err != nil {
		return err
	}
	lab := points[0]
	if form == graphText {
		_, err = fmt.Fprint(a.Out, draw.Text(lab, directionWords))
		return err
	}
	if err := labs.Assign(lab, nil); err != nil {
		return err
	}
	_, err = fmt.Fprint(a.Out, draw.SVG(lab, directionWords))
	return err
}

// directionWords says what a direction does, and nothing of one that does
// nothing.
func directionWords(d *tcplabv1.Direction) string {
	if text := strings.Join(directionText(d), "; "); text != unshaped {
		return text
	}
	return ""
}
