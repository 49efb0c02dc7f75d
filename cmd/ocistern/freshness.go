package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/client"
)

func newHistoryCommand() *cobra.Command {
	var (
		to     connection
		output format
	)
	command := &cobra.Command{
		Use:   "history REFERENCE",
		Short: "Show where a tag has pointed, and which node learned it when",
		Long: "Show the moves of the tag REPOSITORY:TAG, oldest first. BACK: the tag has pointed at that digest\n" +
			"before; absent is a definite answer of the upstream. The last 32 moves are kept, over an absence of up to\n" +
			"30 days too.",
		Example: "  ocistern history ghcr.io/org/app:v1\n  ocistern history ghcr.io/org/app:v1 -o json",
		Args:    oneReference,
		RunE: func(command *cobra.Command, args []string) error {
			return to.with(command, func(c *client.Client) error {
				repository, tag, err := c.Open(args[0])
				if err != nil {
					return err
				}
				history, err := repository.History(command.Context(), tag)
				if err != nil {
					return err
				}
				return showHistory(command, output, args[0], history)
			})
		},
	}
	to.registerReads(command)
	output.register(command.Flags())
	return command
}

func showHistory(command *cobra.Command, output format, ref string, history client.TagHistory) error {
	if output == formatJSON {
		return printJSON(command.OutOrStdout(), struct {
			Reference string `json:"reference"`
			client.TagHistory
		}{ref, history})
	}
	if history.Truncated {
		fmt.Fprintln(command.ErrOrStderr(), "older moves were dropped")
	}
	t := &table{}
	t.row("WHEN", "FROM", "TO", "BACK", "SOURCE", "LEARNED BY", "INDEX")
	for _, move := range history.Moves {
		back := "-"
		if move.Back {
			back = "yes"
		}
		t.row(move.Time.UTC().Format(time.RFC3339), target(move.From), target(move.To), back, history.Source,
			cmp.Or(move.Node, "-"), move.CatalogIndex)
	}
	return t.print(command.OutOrStdout())
}

func target(dgst digest.Digest) string { return cmp.Or(dgst.String(), "absent") }

func newInvalidateCommand() *cobra.Command {
	var (
		to     connection
		output format
	)
	command := &cobra.Command{
		Use:   "invalidate NAME...",
		Short: "Make names be asked about at their upstreams again",
		Long: "Make what the cluster knows of mirrored names be asked about at their upstreams before it is answered again, on\n" +
			"every node, whatever was under way: neither fresh nor stale answers are left, and absences are forgotten. A NAME\n" +
			"is REPOSITORY, REPOSITORY:TAG (with the referrers of what it points at), REPOSITORY@DIGEST (its referrers), or\n" +
			"REPOSITORY/* for all repositories below a name. Content is named by its digest and stays.\n\n" +
			"Exit codes: 0 done on all nodes, 6 some node has not confirmed.",
		Example: "  ocistern invalidate ghcr.io/org/app:v1\n  ocistern invalidate 'ghcr.io/org/*'",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name a REPOSITORY, REPOSITORY:TAG, REPOSITORY@DIGEST or REPOSITORY/*")
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error {
			return to.with(command, func(c *client.Client) error {
				done, err := c.Invalidate(command.Context(), args...)
				if err != nil {
					return err
				}
				if output == formatJSON {
					err = printJSON(command.OutOrStdout(), done)
				} else {
					_, err = fmt.Fprintf(command.OutOrStdout(), "invalidated at catalog index %d\n", done.CatalogIndex)
				}
				if err != nil {
					return err
				}
				return done.Everywhere()
			})
		},
	}
	to.register(command)
	output.register(command.Flags())
	return command
}

func newPolicyCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "policy",
		Short: "Explain by which rules a name is answered",
		Args:  knownCommand,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newExplainCommand())
	return command
}

func newExplainCommand() *cobra.Command {
	var (
		to     connection
		output format
	)
	command := &cobra.Command{
		Use:   "explain REFERENCE",
		Short: "Show the policy of a name, where each value comes from, and what would be answered now",
		Long: "Show the policy of REPOSITORY:TAG or REPOSITORY@DIGEST as the node that answers is configured, and what it would\n" +
			"tell a caller now. No upstream is asked. For a digest, that is about its referrers.",
		Example: "  ocistern policy explain ghcr.io/org/app:v1",
		Args: func(command *cobra.Command, args []string) error {
			if err := oneReference(command, args); err != nil {
				return wrongUsage(command, err)
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error {
			return to.with(command, func(c *client.Client) error {
				repository, tagOrDigest, err := c.Open(args[0])
				if err != nil {
					return err
				}
				explained, err := repository.ExplainPolicy(command.Context(), tagOrDigest)
				if err != nil {
					return err
				}
				return showPolicy(command, output, args[0], explained)
			})
		},
	}
	to.registerReads(command)
	output.register(command.Flags())
	return command
}

func showPolicy(command *cobra.Command, output format, ref string, explained client.PolicyExplanation) error {
	if output == formatJSON {
		return printJSON(command.OutOrStdout(), struct {
			Reference string `json:"reference"`
			client.PolicyExplanation
		}{ref, explained})
	}
	t := &table{}
	t.row("reference", ref)
	t.row("now", explained.Decision)
	if explained.Known {
		t.row("confirmed", moment(explained.Observed))
		t.row("fresh until", moment(explained.FreshUntil))
		t.row("stale until", moment(explained.StaleUntil))
	}
	if !explained.BackoffUntil.IsZero() {
		t.row("not asked until", moment(explained.BackoffUntil)+", "+explained.BackoffReason)
	}
	t.row()
	t.row("POLICY", "VALUE", "FROM")
	for _, field := range explained.Fields {
		t.row(field.Name, cmp.Or(field.Value, "-"), field.Origin)
	}
	return t.print(command.OutOrStdout())
}

func moment(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.UTC().Format(time.RFC3339)
}
