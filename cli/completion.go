package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a shell's completion script",
		Long: `Completion prints a script that completes commands, flags and labs in a shell.
Load it where the shell starts: for bash in ~/.bashrc,
  source <(tcplab completion bash)
for zsh in a file _tcplab of a folder in $fpath, for fish in
~/.config/fish/completions/tcplab.fish, for PowerShell in $PROFILE.`,
		Example:   "  tcplab completion bash > tcplab.bash",
		Args:      exactArgs("the name of a shell"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			generate := map[string]func() error{
				"bash":       func() error { return cmd.Root().GenBashCompletionV2(a.Out, true) },
				"zsh":        func() error { return cmd.Root().GenZshCompletion(a.Out) },
				"fish":       func() error { return cmd.Root().GenFishCompletion(a.Out, true) },
				"powershell": func() error { return cmd.Root().GenPowerShellCompletionWithDesc(a.Out) },
			}[args[0]]
			if generate == nil {
				return usageError("there is no completion for %q: want bash, zsh, fish or powershell", args[0])
			}
			if err := generate(); err != nil {
				return fmt.Errorf("write the completion script: %w", err)
			}
			return nil
		},
	}
}
