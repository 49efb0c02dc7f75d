package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/snapshotfile"
)

func newSnapshotCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "snapshot",
		Short: "Save the catalog of a cluster to a file, look at it, bring it back",
		Long: "Save the catalog of a cluster to a file, look at such a file, and bring it back.\n\n" +
			"A snapshot holds the catalog: tags, manifests, referrers, absences, links and holders of blobs. It does not hold\n" +
			"the blobs themselves: those lie on the nodes, and mirrored ones can be fetched again by their digest.",
		Args: knownCommand,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },

		SuggestionsMinimumDistance: 2, // of letters
	}
	add(command, "", newSnapshotSaveCommand(), newSnapshotInspectCommand(), newSnapshotRestoreCommand())
	return command
}

// oneFile wants exactly one argument.
func oneFile(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("name one FILE")
	}
	return nil
}

func newSnapshotSaveCommand() *cobra.Command {
	var (
		to    connection
		local bool
	)
	command := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the catalog to a file",
		Long: "Save the catalog to FILE, or to standard output when FILE is \"-\". The snapshot holds every write that was\n" +
			"acknowledged before the command began; that needs a quorum. It is verified while it arrives. FILE is replaced\n" +
			"only by a complete snapshot.",
		Example: "  ocistern snapshot save catalog.snapshot\n  ocistern snapshot save - | age -r KEY > catalog.age",
		Args:    oneFile,
		RunE: func(command *cobra.Command, args []string) error {
			var options []client.SnapshotOption
			if local {
				options = append(options, client.WithLocalSnapshot())
			}
			return to.with(command, func(c *client.Client) error {
				save := func(w io.Writer) error { return c.SaveSnapshot(command.Context(), w, options...) }
				shown := &progressLine{to: command.ErrOrStderr(), every: time.Second}
				saved, err := snapshotfile.Save(args[0], command.OutOrStdout(), save, shown.show)
				if err != nil {
					return err
				}
				fmt.Fprintf(command.ErrOrStderr(), "saved %s: index %d of cluster %s, %s\n", args[0], saved.Index,
					saved.ClusterID, size(uint64(saved.Bytes)))
				return nil
			})
		},
	}
	to.register(command)
	command.Flags().BoolVar(&local, "local", false,
		"take the catalog as the node that answers has it, which may be behind; the only way\nwithout a quorum")
	return command
}

// progressLine says from time to time how much was done.
type progressLine struct {
	to    io.Writer
	every time.Duration
	last  time.Time
}

func (p *progressLine) show(bytes int64) {
	now := time.Now()
	if p.last.IsZero() {
		p.last = now
	}
	if now.Sub(p.last) >= p.every {
		p.last = now
		fmt.Fprintf(p.to, "%s so far\n", size(uint64(bytes)))
	}
}

func newSnapshotInspectCommand() *cobra.Command {
	var output format
	command := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Verify a snapshot and show what is in it",
		Long: "Read FILE to its end, verify its checksum, and show what is in it. No node is asked.\n\n" +
			"Exit codes: 0 complete, 1 damaged, cut off or of a version that this program does not know, 3 no such file.",
		Example: "  ocistern snapshot inspect catalog.snapshot -o json",
		Args:    oneFile,
		RunE: func(command *cobra.Command, args []string) error {
			report, failure := snapshotfile.Inspect(args[0])
			if failure != nil && !errors.Is(failure, errdef.ErrSnapshotInvalid) {
				return failure
			}
			if err := showSnapshot(command.OutOrStdout(), output, report); err != nil {
				return err
			}
			return failure
		},
	}
	output.register(command.Flags())
	return command
}

func showSnapshot(out io.Writer, output format, r snapshotfile.Report) error {
	if output == formatJSON {
		return printJSON(out, r)
	}
	complete := "yes"
	if !r.Complete {
		complete = "NO: " + r.Damage
	}
	t := &table{}
	t.row("complete", complete)
	t.row("version", r.Version)
	t.row("cluster", r.ClusterID)
	t.row("index", r.Index)
	t.row("command hash", r.CommandHash)
	t.row("size", fmt.Sprintf("%s (%d bytes)", size(uint64(r.Bytes)), r.Bytes))
	t.row("records", fmt.Sprintf("%d tags, %d manifests, %d referrers lists, %d absences, %d blobs, %d links",
		r.Records.Tags, r.Records.Manifests, r.Records.Referrers, r.Records.Absences, r.Records.Blobs, r.Records.Links))
	return t.print(out)
}

func newSnapshotRestoreCommand() *cobra.Command {
	var (
		to         connection
		output     format
		yes, force bool
	)
	command := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the catalog of a running cluster by a snapshot",
		Long: "Replace the catalog of a running cluster by the snapshot in FILE, on all nodes. The cluster needs a quorum; see\n" +
			"`ocistern recover` for one that has lost it. All of FILE is verified before anything changes.\n\n" +
			"Everything that was written after the snapshot was saved is gone. Without --yes, nothing is done but to say what\n" +
			"would be replaced. A snapshot of another cluster is taken only with --yes --force; it becomes one of this cluster.\n\n" +
			"Should the leader crash before the others have the snapshot, it comes back under a new id and its vote is lost. Where\n" +
			"voters are missing and the others are no quorum without the leader, that would cost the cluster its quorum: then, too,\n" +
			"nothing is done without --yes --force.",
		Example: "  ocistern snapshot restore catalog.snapshot\n  ocistern snapshot restore catalog.snapshot --yes",
		Args:    oneFile,
		RunE: func(command *cobra.Command, args []string) error {
			report, err := snapshotfile.Inspect(args[0])
			if err != nil {
				return err
			}
			return to.with(command, func(c *client.Client) error {
				if !yes {
					return refuseToRestore(command.Context(), c, report)
				}
				var options []client.SnapshotOption
				if force {
					options = append(options, client.WithForcedRestore())
				}
				open := func() (io.ReadCloser, error) { return snapshotfile.Open(args[0]) }
				done, err := c.RestoreSnapshot(command.Context(), open, options...)
				if err != nil {
					return err
				}
				return showRestored(command.OutOrStdout(), output, done)
			})
		},
	}
	to.register(command)
	output.register(command.Flags())
	command.Flags().BoolVar(&yes, "yes", false, "replace the catalog")
	command.Flags().BoolVar(&force, "force", false,
		"with --yes: even by the snapshot of another cluster, and even where voters are missing and a leader\n"+
			"that crashes meanwhile would cost the quorum")
	return command
}

// refuseToRestore says what would happen.
func refuseToRestore(ctx context.Context, c *client.Client, r snapshotfile.Report) error {
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	flag := "--yes"
	if status.ClusterID != r.ClusterID {
		flag = "--yes --force, since the snapshot is one of cluster " + r.ClusterID
	}
	return errdef.New(errdef.UsageInvalid, "the catalog of cluster %s would be replaced, now at index %d with %d tags, "+
		"by the one at index %d with %d tags", status.ClusterID, status.Catalog.Index, status.Catalog.Tags, r.Index,
		r.Records.Tags).WithRemedy("save it first: ocistern snapshot save FILE; then add %s", flag)
}

func showRestored(out io.Writer, output format, done client.RestoredSnapshot) error {
	if output == formatJSON {
		return printJSON(out, done)
	}
	t := &table{}
	t.row("restored", fmt.Sprintf("index %d of cluster %s", done.SnapshotIndex, done.SnapshotClusterID))
	t.row("replaced", fmt.Sprintf("index %d", done.Before))
	t.row("catalog", fmt.Sprintf("index %d", done.Index))
	return t.print(out)
}
