package fill

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
)

// fromHolders takes content in from nodes that have it on disk.
func (i *intake) fromHolders(life context.Context, source Holders, desc ocispec.Descriptor, nodes []catalog.NodeID) error {
	if err := i.begin(desc); err != nil {
		return err
	}
	err := errdef.New(errdef.NotFound, "provisional")
	_, _, _ = life, source, nodes
	return err
}
