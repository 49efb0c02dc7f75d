package fill

import (
	"context"
	"io"
	"math/rand/v2"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
)

const (
	// unstatedBytes bounds a blob whose size neither the catalog knows nor the upstream states.
	unstatedBytes = 1 << 30
	// worthwhile is how many bytes an answer that is cut off must bring, so that asking again counts as progress.
	worthwhile = 64 << 10
	// maxFruitless is how often in a row an upstream is asked again although it brings less.
	maxFruitless = 5
)

// blob takes in a blob from the upstream. It goes on where an earlier source has stopped: a holder, an earlier fill whose
// bytes are on the disk, or the upstream itself. When such a whole is wrong, it is fetched anew once.
func (c *contentFlight) blob(life context.Context) (ocispec.Descriptor, error) {
	fruitless, anew := 0, false
	for {
		had := c.written()
		err := c.pull(life)
		if err == nil {
			again, err := c.settle(had > 0 && !anew)
			if !again || err != nil {
				return c.described(), err
			}
			fruitless, anew = 0, true
			continue
		}
		brought := c.written() - had
		if fruitless++; brought >= worthwhile {
			fruitless = 0
		}
		if c.Ingest == nil || !resumable(err, brought) || fruitless > maxFruitless {
			return c.described(), err
		}
		c.Logger.Info("an answer was cut off, asking for the rest", "digest", c.key.Digest, "repository", c.key.Repository,
			"bytes", c.written(), "error", err)
		if err := pause(life, firstBackoff<<max(0, fruitless-1)); err != nil {
			return c.described(), err
		}
	}
}

// resumable tells whether the rest may be asked for: the connection has failed, or it has stalled after all.
func resumable(err error, brought int64) bool {
	switch errdef.ReasonOf(err) {
	case errdef.UpstreamUnavailable:
		return true
	case errdef.UpstreamTimeout: // twice in a row without a byte is enough
		return brought > 0
	}
	return false
}

// pause waits for about that long, or until life ends.
func pause(life context.Context, about time.Duration) error {
	timer := time.NewTimer(about/2 + rand.N(about))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-life.Done():
		return errdef.Wrap(errdef.Unavailable, life.Err(), "the fill was stopped")
	}
}

// described returns what has arrived. An upstream serves all blobs as application/octet-stream; manifests tell what they
// are, so there is no media type.
func (c *contentFlight) described() ocispec.Descriptor {
	if c.Ingest == nil {
		return ocispec.Descriptor{Digest: c.key.Digest}
	}
	return c.Descriptor()
}

// pull takes in what one answer brings of the bytes that are missing, and fails when that is not all of them.
func (c *contentFlight) pull(life context.Context) error {
	object := "blob " + c.path + " " + c.key.Digest.String()
	stalled := errdef.New(errdef.UpstreamTimeout, "upstream %s, %s: no progress for %s",
		c.upstream.name, object, c.Timings.Stall)
	ctx, progress := watch(life, c.Timings.Stall, stalled)
	defer progress.stop()
	// One byte is asked for again: a range that may be empty is one that an upstream may refuse.
	answer, err := c.upstream.blob(ctx, c.path, c.key.Digest, max(0, c.written()-1))
	if err != nil {
		return progress.explain(ctx, err)
	}
	defer answer.Close()
	if err := c.beginBlob(answer.size, progress.ticking(ctx)); err != nil {
		return c.upstream.failure(err, object)
	}
	if c.written() < answer.begins { // what was on the disk went to another fill
		return errdef.New(errdef.UpstreamUnavailable, "upstream %s, %s: bytes before %d are missing", c.upstream.name, object,
			answer.begins)
	}
	err = progress.copy(ctx, io.Discard, io.LimitReader(answer, c.written()-answer.begins))
	if err == nil {
		err = progress.copy(ctx, c, io.LimitReader(answer, c.room()))
	}
	want := c.Descriptor()
	switch {
	case err != nil:
		return c.upstream.failure(networkFailure(err), object)
	case want.Size < 0 && c.room() <= 0:
		return errdef.New(errdef.SizeMismatch, "upstream %s, %s: more than %d bytes, and no size is stated",
			c.upstream.name, object, c.unstated)
	case c.written() < want.Size:
		return errdef.New(errdef.UpstreamUnavailable, "upstream %s, %s: the answer ended after %d of %d bytes",
			c.upstream.name, object, c.written(), want.Size)
	}
	return nil
}

// beginBlob begins with the size that the upstream states, or else with that of the manifest that names the blob.
func (c *contentFlight) beginBlob(size int64, tick func() error) error {
	if c.Ingest != nil {
		if known := c.Descriptor().Size; size >= 0 && known >= 0 && size != known {
			return errdef.New(errdef.UpstreamInvalid, "it states a size of %d bytes, and %d before", size, known)
		}
		return nil
	}
	if size < 0 {
		size = -1
		if link, ok := c.key.link(c.Catalog.Snapshot()); ok {
			size = link.Size
		}
	}
	return c.begin(ocispec.Descriptor{Digest: c.key.Digest, Size: size}, tick)
}

// room returns how many more bytes are taken, one more than may come.
func (c *contentFlight) room() int64 {
	size := c.Descriptor().Size
	if size < 0 {
		size = c.unstated
	}
	return size - c.written() + 1
}
