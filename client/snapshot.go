package client

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/ocistern/ocistern/internal/errdef"
	snapshotv1 "github.com/ocistern/ocistern/internal/proto/ocistern/snapshot/v1"
)

// SnapshotOption changes how a snapshot is saved or restored.
type SnapshotOption func(*snapshotOptions)

type snapshotOptions struct {
	local, force bool
}

// WithLocalSnapshot takes the catalog of the node that answers as it is. By default a snapshot holds every write that was
// acknowledged before the call, which needs a quorum.
func WithLocalSnapshot() SnapshotOption { return func(o *snapshotOptions) { o.local = true } }

// WithForcedRestore restores what is refused else: a snapshot that was saved from another cluster, which becomes one of this
// cluster, and any snapshot where voters are missing, so that a leader that fails meanwhile would cost the quorum.
func WithForcedRestore() SnapshotOption {
	return func(o *snapshotOptions) { o.force = true }
}

func snapshotOptionsOf(opts []SnapshotOption) (chosen snapshotOptions) {
	for _, option := range opts {
		option(&chosen)
	}
	return chosen
}

// SaveSnapshot writes a snapshot of the catalog to a writer. Another node is asked only while nothing was written yet; ctx
// bounds the whole, and no node may be silent for longer than the attempt timeout. The snapshot is whole when its own
// trailer says so: nil tells no more than that the node has sent all it had.
func (c *Client) SaveSnapshot(ctx context.Context, to io.Writer, opts ...SnapshotOption) error {
	request := &snapshotv1.SaveRequest{Local: snapshotOptionsOf(opts).local}
	var broken error // after the first byte
	err := c.failover(ctx, c.sticky(), func(i int, patience time.Duration) error {
		written, err := c.saveFrom(ctx, c.pool.endpoints[i], patience, request, to)
		if written {
			broken = err
			return nil
		}
		return err
	})
	if err == nil {
		err = broken
	}
	return err
}

// saveFrom reports whether it has written anything.
func (c *Client) saveFrom(
	ctx context.Context, node *endpoint, patience time.Duration, request *snapshotv1.SaveRequest, to io.Writer,
) (written bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer watchdog.Stop()
	stream, err := node.snapshots.Save(ctx, request)
	if err != nil {
		return false, err
	}
	for {
		part, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return written, nil
		case err != nil && errors.Is(context.Cause(ctx), errSilent):
			return written, errdef.Wrap(errdef.Unavailable, errSilent, "snapshot stalled for %s", patience)
		case err != nil:
			return written, errdef.FromGRPC(err)
		}
		watchdog.Stop() // a slow writer is no silent node
		written = true
		if _, err := to.Write(part.GetChunk()); err != nil {
			return written, errdef.Wrap(errdef.StorageFailed, err, "cannot write the snapshot")
		}
		watchdog.Reset(c.options.attemptTimeout)
	}
}

// RestoredSnapshot tells what a restore did.
type RestoredSnapshot struct {
	// Before and Index are the catalog index of the cluster, before the restore and after it. It never goes back.
	Before uint64 `json:"before"`
	Index  uint64 `json:"index"`
	// SnapshotIndex and SnapshotClusterID are those of the snapshot as it was saved.
	SnapshotIndex     uint64 `json:"snapshotIndex"`
	SnapshotClusterID string `json:"snapshotClusterId"`
}

// RestoreSnapshot replaces the catalog of the whole cluster by a snapshot. All of it is verified before anything changes.
// open is called again for each node that is tried; ctx bounds the whole.
//
// ErrOutcomeUnknown says that the catalog may or may not have been replaced; with any other error it was not.
// ErrClusterMismatch: it is the snapshot of another cluster. ErrDegraded: voters are missing, and those that are alive beside
// the leader are no quorum.
func (c *Client) RestoreSnapshot(
	ctx context.Context, open func() (io.ReadCloser, error), opts ...SnapshotOption,
) (RestoredSnapshot, error) {
	force := snapshotOptionsOf(opts).force
	var response *snapshotv1.RestoreResponse
	var final error
	err := c.failover(ctx, c.sticky(), func(i int, _ time.Duration) error {
		var err error
		response, err = restoreThrough(ctx, c.pool.endpoints[i], open, force)
		switch errdef.ReasonOf(err) {
		case errdef.Unavailable, errdef.NotReady, errdef.NotLeader, errdef.NoQuorum:
			return err // nothing was changed, and another node may do better
		}
		final = err
		return nil
	})
	if err == nil {
		err = final
	}
	c.session.raise(response.GetIndex())
	return RestoredSnapshot{
		Before: response.GetBefore(), Index: response.GetIndex(), SnapshotIndex: response.GetSnapshotIndex(),
		SnapshotClusterID: response.GetSnapshotClusterId(),
	}, err
}

func restoreThrough(
	ctx context.Context, node *endpoint, open func() (io.ReadCloser, error), force bool,
) (*snapshotv1.RestoreResponse, error) {
	from, err := open()
	if err != nil {
		return nil, err
	}
	defer from.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := node.snapshots.Restore(ctx)
	if err != nil {
		return nil, err
	}
	return snapshotv1.Upload(stream, from, force)
}
