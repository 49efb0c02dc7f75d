package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/client"
)

func newMembersCommand() *cobra.Command {
	var (
		to     connection
		output format
	)
	command := &cobra.Command{
		Use:   "members",
		Short: "Show the members of a cluster, and change them",
		Long: "Show the members as the leader sees them. LAG is how many entries of the log a member is behind the leader,\n" +
			"SILENT for how long it has answered no heartbeat, LEVEL the highest feature level that it supports.\n\n" +
			"Members come and go by themselves: a node that starts with cluster.join joins as a nonvoter, is promoted while\n" +
			"voters are missing, and a dead one is replaced after cluster.dead-voter-after. The commands below are for an\n" +
			"operator who knows more. They may be given to any node; the leader carries them out.\n\n" +
			"Exit codes: 0 done, 3 no such member, 5 no leader or a member that does not answer.",
		Example: "  ocistern members\n  ocistern members leave node-3\n  ocistern members replace node-2",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return to.with(command, func(c *client.Client) error { return showMembers(command, output, c) })
		},
	}
	to.register(command)
	output.register(command.Flags())
	command.AddCommand(newLeaveCommand(), newRemoveCommand(), newReplaceCommand(), newTransferCommand())
	return command
}

// operation is what the commands below have in common: they do something, then show the members.
func operation(command *cobra.Command, do func(ctx context.Context, c *client.Client, args []string) error) *cobra.Command {
	var (
		to     connection
		output format
	)
	command.RunE = func(command *cobra.Command, args []string) error {
		return to.with(command, func(c *client.Client) error {
			if err := do(command.Context(), c, args); err != nil {
				return err
			}
			return showMembers(command, output, c)
		})
	}
	wanted := command.Args
	command.Args = func(command *cobra.Command, args []string) error {
		if err := wanted(command, args); err != nil {
			return wrongUsage(command, err)
		}
		return nil
	}
	to.register(command)
	output.register(command.Flags())
	return command
}

func newLeaveCommand() *cobra.Command {
	return operation(&cobra.Command{
		Use:   "leave MEMBER",
		Short: "Make a living member leave for good",
		Long: "Make a living member leave for good: it hands over the leadership, a nonvoter takes its place where there is one,\n" +
			"it is removed, and what it held is copied elsewhere. The node stays up and is not ready; stop it then. To let it\n" +
			"join again, under a new id, delete node.json and raft in its data directory.\n\n" +
			"A node that is only to stop for a while needs no such thing: SIGTERM, and it stays a member.",
		Example: "  ocistern members leave node-3",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) error {
		_, err := c.Leave(ctx, args[0])
		return err
	})
}

func newRemoveCommand() *cobra.Command {
	return operation(&cobra.Command{
		Use:   "remove MEMBER",
		Short: "Remove a dead member now",
		Long: "Remove a dead member now, whether or not another one takes its place. Refused while it answers, and when the\n" +
			"voters that are left would be no quorum of themselves. Should it come back on its data directory, it joins again\n" +
			"as a nonvoter.",
		Example: "  ocistern members remove node-3",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) error {
		_, err := c.Remove(ctx, args[0])
		return err
	})
}

func newReplaceCommand() *cobra.Command {
	return operation(&cobra.Command{
		Use:   "replace MEMBER [NONVOTER]",
		Short: "Put a nonvoter in the place of a dead voter now",
		Long: "Promote a nonvoter, any where none is named, then remove the dead voter: what happens by itself after\n" +
			"cluster.dead-voter-after. Refused while the voter answers: a living one can leave.",
		Example: "  ocistern members replace node-3\n  ocistern members replace node-3 node-4",
		Args:    cobra.RangeArgs(1, 2),
	}, func(ctx context.Context, c *client.Client, args []string) error {
		by := ""
		if len(args) == 2 {
			by = args[1]
		}
		_, err := c.Replace(ctx, args[0], by)
		return err
	})
}

func newTransferCommand() *cobra.Command {
	return operation(&cobra.Command{
		Use:     "transfer [VOTER]",
		Short:   "Hand the leadership to another voter",
		Example: "  ocistern members transfer node-2",
		Args:    cobra.MaximumNArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) error {
		_, err := c.TransferLeadership(ctx, cmp.Or(append(args, "")...))
		return err
	})
}

// showMembers prints the members and returns an error when none of them leads.
func showMembers(command *cobra.Command, output format, c *client.Client) error {
	members, err := c.Members(command.Context())
	if err != nil {
		return err
	}
	slices.SortFunc(members, func(a, b client.MemberView) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	if err := printMembers(command.OutOrStdout(), output, members); err != nil {
		return err
	}
	return client.Led(members)
}

func printMembers(out io.Writer, output format, members []client.MemberView) error {
	if output == formatJSON {
		return printJSON(out, map[string]any{"members": members})
	}
	var reached uint64 // by the leader
	for _, m := range members {
		if m.Leader {
			reached = m.AppliedIndex
		}
	}
	t := &table{}
	t.row("NODE", "ROLE", "STATE", "APPLIED", "LAG", "SILENT", "LEVEL", "RAFT", "ID")
	for _, m := range members {
		role, lag := m.Role, "-"
		if m.Leader {
			role = "leader"
		}
		if m.AppliedIndex > 0 && reached > 0 {
			lag = fmt.Sprint(max(m.AppliedIndex, reached) - m.AppliedIndex)
		}
		silent := "-"
		if m.SilentSeconds >= 1 { // less is the time between two heartbeats
			silent = (time.Duration(m.SilentSeconds) * time.Second).String()
		}
		t.row(cmp.Or(m.Name, "-"), role, m.State, known(m.AppliedIndex), lag, silent, known(uint64(m.FeatureLevel)), m.RaftAddress, m.ID)
	}
	return t.print(out)
}
