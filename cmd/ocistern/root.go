package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/internal/errdef"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "ocistern",
		Short: "A consistent shared cache of OCI artifacts",
		Long: "Ocistern keeps one consistent, shared copy of what image verifiers read from registries: tags, manifests,\n" +
			"referrers, signatures and layers. Nodes form a cluster; any of them answers.",
		Example: "  ocistern dev --upstream ghcr.io=https://ghcr.io\n" +
			"  ocistern resolve ghcr.io/org/app:v1\n" +
			"  ocistern status",
		SilenceUsage:  true,
		SilenceErrors: true, // run reports them
		Args:          knownCommand,
		RunE:          func(command *cobra.Command, _ []string) error { return command.Help() },

		SuggestionsMinimumDistance: 2, // of letters
	}
	root.AddGroup(
		&cobra.Group{ID: "nodes", Title: "Run nodes:"},
		&cobra.Group{ID: "read", Title: "Read through a cluster:"},
		&cobra.Group{ID: "look", Title: "Look after a cluster:"},
	)
	add(root, "nodes", newServeCommand(), newDevCommand())
	add(root, "read", newResolveCommand(), newReferrersCommand(), newPrefetchCommand())
	add(root, "look", newStatusCommand(), newMembersCommand(), newHistoryCommand(), newPolicyCommand(), newInvalidateCommand(),
		newSnapshotCommand(), newRecoverCommand(), newVersionCommand())
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error { return wrongUsage(command, err) })
	return root
}

// add puts commands into a group and makes their complaints about arguments usage errors.
func add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, command := range commands {
		command.GroupID = group
		arguments := command.Args
		command.Args = func(command *cobra.Command, args []string) error {
			if err := arguments(command, args); err != nil {
				return wrongUsage(command, err)
			}
			return nil
		}
		root.AddCommand(command)
	}
}

// knownCommand refuses words that are no command below parent, and names the nearest one.
func knownCommand(parent *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("%q is not a command", args[0])
	if near := parent.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w: did you mean %s?", err, near[0])
	}
	return wrongUsage(parent, err)
}

func wrongUsage(command *cobra.Command, err error) error {
	return errdef.New(errdef.UsageInvalid, "%v", err).WithRemedy("see `%s --help`", command.CommandPath())
}

// oneReference wants exactly one argument.
func oneReference(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return errors.New("name a REFERENCE, REPOSITORY:TAG or REPOSITORY@DIGEST")
	case 1:
		return nil
	default:
		return fmt.Errorf("one REFERENCE at a time, not %d", len(args))
	}
}

// references wants at least one argument.
func references(command *cobra.Command, args []string) error {
	if len(args) > 1 {
		return nil
	}
	return oneReference(command, args)
}
