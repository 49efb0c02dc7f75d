package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/client"
)

func newResolveCommand() *cobra.Command {
	var (
		to     connection
		output format
	)
	command := &cobra.Command{
		Use:   "resolve REFERENCE",
		Short: "Show what a tag or digest points at",
		Long: "Show the descriptor that REPOSITORY:TAG or REPOSITORY@DIGEST points at, where the answer comes from and\n" +
			"how old it is. A mirrored repository is named with its registry host, such as ghcr.io/org/app.",
		Example: "  ocistern resolve ghcr.io/org/app:v1\n  ocistern resolve ghcr.io/org/app:v1 -o json",
		Args:    oneReference,
		RunE: func(command *cobra.Command, args []string) error {
			return to.with(command, func(c *client.Client) error {
				repository, tagOrDigest, err := c.Open(args[0])
				if err != nil {
					return err
				}
				resolution, err := repository.ResolveDetailed(command.Context(), tagOrDigest)
				if err != nil {
					return err
				}
				return showResolution(command.OutOrStdout(), output, args[0], resolution)
			})
		},
	}
	to.registerReads(command)
	output.register(command.Flags())
	return command
}

func showResolution(out io.Writer, output format, ref string, r client.Resolution) error {
	if output == formatJSON {
		return printJSON(out, struct {
			Reference string `json:"reference"`
			client.Resolution
		}{ref, r})
	}
	t := &table{}
	t.row("reference", ref)
	t.row("digest", r.Descriptor.Digest)
	t.row("media type", r.Descriptor.MediaType)
	if r.Descriptor.ArtifactType != "" {
		t.row("artifact type", r.Descriptor.ArtifactType)
	}
	t.row("size", fmt.Sprintf("%d B", r.Descriptor.Size))
	t.row("source", origins(r.Provenance))
	t.row("catalog", fmt.Sprintf("index %d, on %s", r.Provenance.CatalogIndex, r.Provenance.Node))
	return t.print(out)
}

// origins declares source, age and freshness in words (guarantee G6).
func origins(p client.Provenance) string {
	text := string(p.Source)
	if !p.Observed.IsZero() {
		age := time.Duration(p.AgeSeconds * float64(time.Second))
		if p.Why == "" { // a node that tells neither
			age = p.Age(time.Now())
		}
		text += fmt.Sprintf(", confirmed %s ago", age.Round(time.Second))
	}
	if !p.Fresh {
		return text + ", STALE: " + p.StaleReason
	}
	text += ", fresh"
	if p.Why != "" && p.Why != "fresh" && p.Why != string(p.Source) {
		text += " (" + p.Why + ")"
	}
	return text
}

func newReferrersCommand() *cobra.Command {
	var (
		to           connection
		output       format
		artifactType string
	)
	command := &cobra.Command{
		Use:   "referrers REFERENCE",
		Short: "List the signatures, SBOMs and attestations of an artifact",
		Long: "List the artifacts that have the one at REPOSITORY:TAG or REPOSITORY@DIGEST as their subject. The list is\n" +
			"complete, or the command fails.",
		Example: "  ocistern referrers ghcr.io/org/app:v1\n" +
			"  ocistern referrers ghcr.io/org/app:v1 --artifact-type application/vnd.cncf.notary.signature -o json",
		Args: oneReference,
		RunE: func(command *cobra.Command, args []string) error {
			return to.with(command, func(c *client.Client) error {
				repository, tagOrDigest, err := c.Open(args[0])
				if err != nil {
					return err
				}
				subject, err := repository.Resolve(command.Context(), tagOrDigest)
				if err != nil {
					return err
				}
				list, err := repository.ReferrersDetailed(command.Context(), subject, artifactType)
				if err != nil {
					return err
				}
				return showReferrers(command, output, subject.Digest.String(), list)
			})
		},
	}
	to.registerReads(command)
	output.register(command.Flags())
	command.Flags().StringVar(&artifactType, "artifact-type", "", "list only this type")
	return command
}

func showReferrers(command *cobra.Command, output format, subject string, list client.ReferrerList) error {
	if output == formatJSON {
		return printJSON(command.OutOrStdout(), struct {
			Subject string `json:"subject"`
			client.ReferrerList
		}{subject, list})
	}
	fmt.Fprintf(command.ErrOrStderr(), "%d referrers of %s (%s)\n",
		len(list.Descriptors), subject, origins(list.Provenance))
	t := &table{}
	t.row("DIGEST", "ARTIFACT TYPE", "SIZE")
	for _, referrer := range list.Descriptors {
		t.row(referrer.Digest, referrer.ArtifactType, fmt.Sprintf("%d B", referrer.Size))
	}
	return t.print(command.OutOrStdout())
}
