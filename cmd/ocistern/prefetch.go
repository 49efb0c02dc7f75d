package main

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/ocistern/ocistern/client"
)

// prefetched is one line of the output.
type prefetched struct {
	Reference string `json:"reference"`
	client.Prefetched
}

func newPrefetchCommand() *cobra.Command {
	var (
		to     connection
		output format
	)
	command := &cobra.Command{
		Use:   "prefetch REFERENCE...",
		Short: "Make the cluster hold what verifiers will ask for",
		Long: "Read manifests, referrers and theirs, and their blobs up to 256 KiB, so that the cluster answers verifiers\n" +
			"of these artifacts from its own copy. Layers are left to whoever pulls. A reference that fails does not stop\n" +
			"the others.",
		Example: "  ocistern prefetch ghcr.io/org/app:v1 ghcr.io/org/db:v3",
		Args:    references,
		RunE: func(command *cobra.Command, args []string) error {
			return to.with(command, func(c *client.Client) error {
				done, failure := prefetchAll(command, c, args)
				if err := showPrefetched(command, output, done); err != nil {
					return err
				}
				return failure
			})
		},
	}
	to.registerReads(command)
	output.register(command.Flags())
	return command
}

// prefetchAll reports each failure where it happens and returns the first.
func prefetchAll(command *cobra.Command, c *client.Client, refs []string) (done []prefetched, first error) {
	done = []prefetched{} // never null in JSON
	for _, ref := range refs {
		counted, err := prefetch(command, c, ref)
		if err == nil {
			done = append(done, prefetched{ref, counted})
			continue
		}
		report(command.ErrOrStderr(), command, err)
		if first == nil {
			first = loggedError{err}
		}
		if command.Context().Err() != nil {
			break
		}
	}
	return done, first
}

// prefetch reads around one reference, with progress on standard error.
func prefetch(command *cobra.Command, c *client.Client, ref string) (client.Prefetched, error) {
	repository, tagOrDigest, err := c.Open(ref)
	if err != nil {
		return client.Prefetched{}, err
	}
	return repository.Prefetch(command.Context(), tagOrDigest, func(artifact ocispec.Descriptor) {
		fmt.Fprintf(command.ErrOrStderr(), "%s  %s  %s\n", ref, artifact.Digest, artifact.ArtifactType)
	})
}

func showPrefetched(command *cobra.Command, output format, done []prefetched) error {
	if output == formatJSON {
		return printJSON(command.OutOrStdout(), done)
	}
	if len(done) == 0 {
		return nil
	}
	t := &table{}
	t.row("REFERENCE", "DIGEST", "REFERRERS", "BLOBS", "LARGE", "SIZE")
	for _, p := range done {
		t.row(p.Reference, p.Descriptor.Digest, p.Referrers, p.Blobs, p.Large, size(uint64(p.Bytes)))
	}
	return t.print(command.OutOrStdout())
}
