package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/internal/dev"
	"github.com/ocistern/ocistern/internal/devcluster"
	"github.com/ocistern/ocistern/internal/errdef"
)

// newDevCommand runs a cluster on this machine for trying out.
func newDevCommand() *cobra.Command {
	options := dev.Options{}
	command := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster on this machine, for trying out",
		Long: "Run a cluster of several nodes on this machine until SIGTERM or SIGINT, one `ocistern serve` process a\n" +
			"node.\n\n" +
			"When all nodes are ready, standard output says `ready` and standard error what to try. The other commands find\n" +
			"the cluster by themselves; programs read its addresses from DIR/endpoints.json.",
		Example: "  ocistern dev --upstream ghcr.io=https://ghcr.io\n  ocistern dev --nodes 1 --base-port 0 --data ./data",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			var err error
			if options.Executable, err = os.Executable(); err != nil {
				return errdef.Wrap(errdef.Internal, err, "cannot find the binary that runs")
			}
			if options.Pointer, err = devcluster.DefaultPointer(); err != nil {
				return err
			}
			options.Command, options.Version = os.Args[0], version
			options.FixedPorts = command.Flags().Changed("base-port")
			options.Stdout, options.Stderr = command.OutOrStdout(), command.ErrOrStderr()
			return dev.Run(command.Context(), options)
		},
	}
	flags := command.Flags()
	flags.IntVar(&options.Nodes, "nodes", 3, "number of nodes, 1 to 9")
	flags.StringVar(&options.Data, "data", "", "directory to keep the data in (default a temporary one)")
	flags.IntVar(&options.BasePort, "base-port", dev.DefaultBasePort,
		"node I takes this port plus I, plus I+10, ... plus I+50; 0 takes free ports")
	flags.StringArrayVar(&options.Upstreams, "upstream", nil, "registry that may be mirrored, NAME=URL (repeatable)")
	flags.StringArrayVar(&options.Credentials, "credential", nil, "as of serve (repeatable)")
	flags.StringArrayVar(&options.Policies, "policy", nil, "as of serve (repeatable)")
	return command
}
