package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/errdef"
)

// statusPatience is how long one node may take to tell its status: whoever looks at a cluster in trouble wants to see
// it now. A digest of the catalog takes its time.
const (
	statusPatience = 2 * time.Second
	digestPatience = time.Minute
)

func newStatusCommand() *cobra.Command {
	var (
		to          connection
		output      format
		all, digest bool
	)
	command := &cobra.Command{
		Use:   "status",
		Short: "Show the members, the catalog and the content of a cluster",
		Long: "Show a cluster as its nodes see it: members, catalog, content, and requests to upstream registries (the sum\n" +
			"over the endpoints asked). A member whose gossip is alive but whose endpoint does not answer is unreachable.\n\n" +
			"With --all, show each endpoint by itself, and check that all nodes hold the same catalog.\n\n" +
			"Exit codes: 0 whole, 5 no node answers or no quorum, 6 a voter (with --all: an endpoint) is missing,\n" +
			"7 catalogs differ (--all).",
		Example: "  ocistern status\n  ocistern status --all --catalog-digest -o json",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			var options []client.StatusOption
			patience := statusPatience
			if digest {
				options, patience = append(options, client.WithCatalogDigest()), digestPatience
			}
			return to.with(command, func(c *client.Client) error {
				nodes := c.StatusAll(command.Context(), options...)
				if command.Context().Err() != nil {
					return errdef.Wrap(errdef.Canceled, command.Context().Err(), "interrupted")
				}
				if all {
					return showAll(command.OutOrStdout(), output, nodes)
				}
				return showCluster(command.OutOrStdout(), output, nodes)
			}, client.WithAttemptTimeout(patience))
		},
	}
	to.register(command)
	output.register(command.Flags())
	command.Flags().BoolVar(&all, "all", false, "show and compare all endpoints")
	command.Flags().BoolVar(&digest, "catalog-digest", false,
		"compute a digest of the whole catalog (slow on a large one)")
	return command
}
