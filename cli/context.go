package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcplab/tcplab/internal/identity"
	"github.com/tcplab/tcplab/internal/rpcerr"
	tcplabv1 "github.com/tcplab/tcplab/proto/gen/tcplab/v1"
)

// Contexts that are always there.
const (
	embeddedContext = "embedded" // labs on this machine, without a controller
	socketContext   = "local"    // the controller on this machine, by its socket
)

// Names in the environment.
const (
	contextVar   = "TCPLAB_CONTEXT"    // stands for --context
	configDirVar = "TCPLAB_CONFIG_DIR" // replaces the folder of contexts
)

// Names in the folder of contexts.
const (
	chosenFile     = "context"
	contextsDir    = "contexts"
	controllerFile = "controller" // of one context: the controller's address
)

// contexts are the controllers that this user knows, each in a folder with a key of its own.
type contexts struct{ dir string }

// contexts finds the folder; it need not be there.
func (a *app) contexts() (*contexts, error) {
	if dir := a.Getenv(configDirVar); dir != "" {
		abs, err := filepath.Abs(dir)
		return &contexts{dir: abs}, err
	}
	if dir := a.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return &contexts{dir: filepath.Join(dir, "tcplab")}, nil
	}
	if home := a.Getenv("HOME"); home != "" {
		return &contexts{dir: filepath.Join(home, ".config", "tcplab")}, nil
	}
	return &contexts{}, nil // there are none
}

func (c *contexts) path(name string) string { return filepath.Join(c.dir, contextsDir, name) }

// current is the context that is asked for by name, or else that was chosen before.
func (c *contexts) current(asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	if c.dir == "" {
		return embeddedContext, nil
	}
	content, err := os.ReadFile(filepath.Join(c.dir, chosenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return embeddedContext, nil
	}
	if err != nil {
		return "", fmt.Errorf("find out which context was chosen: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

// onThisMachine reports whether labs stand on this machine, without a controller.
func (a *app) onThisMachine() bool {
	all, err := a.contexts()
	if err != nil {
		return false
	}
	name, err := all.current(a.context)
	return err == nil && name == embeddedContext
}

// use chooses a context for all commands to come.
func (c *contexts) use(name string) error {
	if name != embeddedContext && name != socketContext {
		if _, _, err := c.load(name); err != nil {
			return err
		}
	}
	if c.dir == "" {
		return usageError("there is nowhere to keep the choice: HOME is not set; set %s", configDirVar)
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("choose a context: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, chosenFile), []byte(name+"\n"), 0o600); err != nil {
		return fmt.Errorf("choose a context: %w", err)
	}
	return nil
}

// names lists the contexts, in order.
func (c *contexts) names() ([]string, error) {
	all := []string{embeddedContext, socketContext}
	entries, err := os.ReadDir(filepath.Join(c.dir, contextsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the contexts: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() && identity.ValidName(entry.Name()) {
			all = append(all, entry.Name())
		}
	}
	slices.Sort(all)
	return all, nil
}

// load reads a context.
func (c *contexts) load(name string) (*identity.Credential, string, error) {
	if !identity.ValidName(name) || c.dir == "" {
		return nil, "", usageError("there is no context %q; `tcplab context list` lists them", name)
	}
	credential, err := identity.Load(c.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", usageError("there is no context %q; `tcplab context list` lists them", name)
	}
	if err != nil {
		return nil, "", fmt.Errorf("context %s: %w", name, err)
	}
	address, err := os.ReadFile(filepath.Join(c.path(name), controllerFile))
	if err != nil {
		return nil, "", fmt.Errorf("context %s: %w", name, err)
	}
	return credential, strings.TrimSpace(string(address)), nil
}

// save keeps a context.
func (c *contexts) save(name, address string, credential *identity.Credential) error {
	if err := os.MkdirAll(c.path(name), 0o700); err != nil {
		return fmt.Errorf("keep context %s: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(c.path(name), controllerFile), []byte(address+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep context %s: %w", name, err)
	}
	return identity.Save(c.path(name), credential)
}

// joinWithin bounds the exchange of a token for a certificate.
const joinWithin = 30 * time.Second

func (a *app) contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Choose the controller that commands speak to",
		Long: `A context is a controller and who you are to it. Commands such as run, runs, up, ps,
exec, link and hosts speak to the controller of the context that was chosen, by
"tcplab context use", by ` + contextVar + ` or by --context. Two are always there:
"embedded", the default, where labs run on this machine without a controller, and
"local", the controller on this machine for its root.`,
		Example: `  tcplab context add lab1 --controller lab1.example:7443 --join TOKEN
  tcplab context use lab1
  tcplab context list`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.contextAddCommand(), a.contextUseCommand(), a.contextListCommand(), a.contextRemoveCommand())
	return cmd
}

func (a *app) contextAddCommand() *cobra.Command {
	var join, controller string
	cmd := &cobra.Command{
		Use:   "add NAME --controller ADDRESS --join TOKEN",
		Short: "Join a controller, and choose it",
		Long: `Add makes a key, which stays on this machine, and exchanges the token that
"tcplab user invite" printed for a certificate of the controller. The token pins the
controller: another one gets to see nothing. TOKEN "-" reads it from standard input.`,
		Example: "  tcplab context add lab1 --controller lab1.example:7443 --join -",
		Args:    exactArgs("a name for the context"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.contexts()
			if err != nil {
				return err
			}
			name := args[0]
			if !identity.ValidName(name) || name == embeddedContext || name == socketContext || all.dir == "" {
				return usageError("a context cannot be called %q", name)
			}
			if _, _, err := all.load(name); err == nil {
				return usageError("there is a context %s already; `tcplab context remove %s` removes it", name, name)
			}
			credential, who, err := a.join(cmd.Context(), controller, join, "")
			if err != nil {
				return err
			}
			if err := all.save(name, controller, credential); err != nil {
				return err
			}
			if err := all.use(name); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.Out, "context %s: %s, %s at %s\n", name, who.GetName(), roleWord(who.GetRole()), controller)
			return err
		},
	}
	cmd.Flags().StringVar(&controller, "controller", "", "the controller's `ADDRESS`, host:port")
	cmd.Flags().StringVar(&join, "join", "", "the `TOKEN`, or - for standard input")
	return cmd
}

// join exchanges a token for a certificate.
func (a *app) join(ctx context.Context, controller, join, name string) (*identity.Credential, *tcplabv1.Principal, error) {
	if controller == "" || join == "" {
		return nil, nil, usageError("joining takes --controller and --join")
	}
	if err := checkAddress("--controller", controller); err != nil {
		return nil, nil, err
	}
	if join == "-" {
		line, err := a.readLine()
		if err != nil {
			return nil, nil, fmt.Errorf("read the token: %w", err)
		}
		join = line
	}
	token, err := identity.ParseToken(join)
	if err != nil {
		return nil, nil, usageError("--join: %v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	return identity.Join(ctx, controller, token, name)
}

func (a *app) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Choose a context for the commands to come",
		Example:           "  tcplab context use lab1",
		Args:              exactArgs("a context"),
		ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := a.contexts()
			if err != nil {
				return err
			}
			return all.use(args[0])
		},
	}
}

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	all, err := a.contexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, err := all.names()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// contextRow is what list prints of a context.
type contextRow struct {
	Name       string    `json:"name"`
	Chosen     bool      `json:"chosen"`
	Controller string    `json:"controller"`
	User       string    `json:"user"`
	Expires    time.Time `json:"expires,omitzero"`
}

func (a *app) contextListCommand() *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List contexts",
		Example: "  tcplab context list -o json",
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			all, err := a.contexts()
			if err != nil {
				return err
			}
			names, err := all.names()
			if err != nil {
				return err
			}
			chosen, err := all.current(a.context)
			if err != nil {
				return err
			}
			rows := make([]contextRow, 0, len(names))
			for _, name := range names {
				row := contextRow{Name: name, Chosen: name == chosen}
				if credential, address, err := all.load(name); err == nil {
					row.Controller, row.User, row.Expires = address, credential.Identity().Name, credential.Leaf().NotAfter
				}
				rows = append(rows, row)
			}
			if output == formatJSON {
				return printJSON(a.Out, rows)
			}
			var table [][]string
			for _, row := range rows {
				chosen, controller, user, expires := "", "-", "-", "-"
				if row.Chosen {
					chosen = "yes"
				}
				if row.Controller != "" {
					controller, user, expires = row.Controller, row.User, row.Expires.Local().Format(time.DateTime)
				}
				table = append(table, []string{row.Name, controller, user, expires, chosen})
			}
			return printTable(a.Out, []string{"CONTEXT", "CONTROLLER", "USER", "CERTIFICATE UNTIL", "CHOSEN"}, table)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func (a *app) contextRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "remove NAME",
		Short:             "Leave a controller, and forget its context",
		Example:           "  tcplab context remove lab1",
		Args:              exactArgs("a context"),
		ValidArgsFunction: a.completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.contexts()
			if err != nil {
				return err
			}
			name := args[0]
			credential, address, err := all.load(name)
			if err != nil {
				return err
			}
			c, err := dialController(address, credential)
			if err != nil {
				return err
			}
			defer c.closeQuietly()
			ctx, cancel := context.WithTimeout(cmd.Context(), joinWithin)
			defer cancel()
			if _, err := c.access.Leave(ctx, &tcplabv1.LeaveRequest{}); err != nil && !force {
				e := rpcerr.From(err)
				return &statusError{status: exitTrial, message: e.Message, remedy: "--force forgets it here all the same; then have an admin revoke it: tcplab user remove " + credential.Identity().Name}
			}
			if chosen, err := all.current(""); err == nil && chosen == name {
				if err := all.use(embeddedContext); err != nil {
					return err
				}
			}
			return errors.Join(identity.Remove(all.path(name)), os.RemoveAll(all.path(name)))
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also where the controller does not answer")
	return cmd
}
