package main

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/cluster"
	"github.com/ocistern/ocistern/internal/errdef"
)

func newRecoverCommand() *cobra.Command {
	var (
		dir    string
		output format
		force  bool
	)
	command := &cobra.Command{
		Use:   "recover --data-dir DIR",
		Short: "Make one survivor a cluster of its own, when a quorum is lost for good",
		Long: "Make the node in DIR the only voter of a new cluster with its catalog. The node must not run.\n\n" +
			"Use it only when a majority of the voters will never come back: their disks are lost. Without --force, show what\n" +
			"was found and what may be lost, and recover nothing: run it on each survivor and choose the one whose last entry\n" +
			"has the highest term, and among those the highest index.\n\n" +
			"The cluster gets a new id. Nodes of the old one are refused; with an empty data directory they join.",
		Example: "  ocistern recover --data-dir /var/lib/ocistern\n  ocistern recover --data-dir /var/lib/ocistern --force",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if dir == "" {
				return errdef.New(errdef.UsageInvalid, "no data directory").WithRemedy("name it with --data-dir")
			}
			logger := slog.New(slog.NewTextHandler(command.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
			found, err := cluster.Examine(dir, logger)
			if err != nil {
				return err
			}
			if err := showSurvivor(command.OutOrStdout(), output, found); err != nil {
				return err
			}
			if !force {
				return errdef.New(errdef.UsageInvalid, "nothing was recovered").WithRemedy(
					"choose the survivor with the highest last entry, by term, then index; then add --force there, and only there")
			}
			recovered, err := cluster.Recover(dir, logger)
			if err != nil {
				return err
			}
			fmt.Fprintf(command.ErrOrStderr(), "recovered as cluster %s\n  next: start this node, then the others, each with an "+
				"empty data directory\n", recovered)
			return nil
		},
	}
	command.Flags().StringVar(&dir, "data-dir", "", "data directory of the survivor")
	command.Flags().BoolVar(&force, "force", false, "do it")
	output.register(command.Flags())
	return command
}

func showSurvivor(out io.Writer, output format, s cluster.Survivor) error {
	if output == formatJSON {
		return printJSON(out, s)
	}
	t := &table{}
	t.row("node", s.Node)
	t.row("cluster", s.ClusterID)
	t.row("role", s.Role)
	t.row("last entry", fmt.Sprintf("term %d, index %d (the node has seen term %d)", s.LastTerm, s.LastIndex, s.Term))
	snapshot := "none"
	if s.SnapshotIndex > 0 {
		snapshot = fmt.Sprintf("index %d", s.SnapshotIndex)
		if !s.SnapshotTime.IsZero() {
			snapshot += ", taken " + s.SnapshotTime.Format(time.RFC3339)
		}
	}
	t.row("snapshot", snapshot)
	for _, other := range s.Others {
		t.row("other voter", fmt.Sprintf("%s at %s", other.ID, other.RaftAddress))
	}
	t.row("catalog", fmt.Sprintf("%d tags, %d manifests, %d blobs", s.Catalog.Tags, s.Catalog.Manifests, s.Catalog.Blobs))
	if s.Unfinished {
		t.row("unfinished", "a recovery was begun here: finish it with --force")
	}
	if s.Restoring {
		t.row("restoring", "a snapshot was being restored here: its catalog is this one, and the other voters may have the one before")
	}
	if s.Role == cluster.RoleNonvoter {
		t.row("nonvoter", "acknowledged writes may be missing here: choose a voter if there is one")
	}
	t.row("may be lost", "writes that only other voters have: those after this node's last entry")
	t.row("", fmt.Sprintf("%d blobs that only other nodes hold; mirrored ones are fetched again", s.OnlyElsewhere))
	t.row("may come back", "writes that were never acknowledged: all of this node's log counts")
	return t.print(out)
}
