package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

const (
	repository reference.Repository = "team/app"

	thinking  = 3 * time.Second        // between two calls of a client, on average
	hurry     = 300 * time.Millisecond // the same while something has just been broken: that is when mistakes are made
	hurried   = 8 * time.Second        // how long it has just been
	staleness = 5 * time.Second        // that bounded reads allow
	epoch     = 2 * time.Minute        // after which other tags are used: checking costs more than linear time for each tag
	tagsOfOne = 2                      // tags in an epoch
)

// client is a verifier or a pipeline: it calls one node, and another one when that fails.
type client struct {
	fleet *fleet
	id    int
	dice  *dice
	at    *host
	calls int

	index     catalog.LogIndex            // of the session
	revisions map[string]catalog.LogIndex // last seen of each tag
	values    map[string]string           // last seen of each tag; what a swap expects
}

func (f *fleet) newClient(id int) *client {
	d := newDice(f.options.Seed, uint64(1000+id))
	return &client{
		fleet: f, id: id, dice: d, at: f.hosts[d.below(len(f.hosts))],
		revisions: map[string]catalog.LogIndex{}, values: map[string]string{},
	}
}

// work calls until the schedule ends.
func (c *client) work(started time.Time) {
	for c.think() {
		n := c.at.running.Load()
		if n == nil || !c.call(n, c.tag(time.Since(started))) || c.dice.float() < 0.05 {
			c.at = c.fleet.hosts[c.dice.below(len(c.fleet.hosts))]
		}
	}
}

// think pauses, and returns false when the run is over.
func (c *client) think() bool {
	mean := thinking
	broken, ended := c.fleet.trouble.last()
	if time.Since(broken) < hurried {
		mean = hurry
	}
	timer := time.NewTimer(c.dice.mostly(mean))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ended: // of the time to think: something broke
		return c.fleet.running.Err() == nil
	case <-c.fleet.running.Done():
		return false
	}
}

func (c *client) tag(age time.Duration) string {
	return fmt.Sprintf("e%d-t%d", age/epoch, c.dice.below(tagsOfOne))
}

// call makes one call, and tells whether the node could answer it.
func (c *client) call(n *node, tag string) bool {
	c.calls++
	patience := c.dice.between(300*time.Millisecond, 4*time.Second) // to write elsewhere while an old leader still leads
	if c.dice.float() < 0.4 {
		patience *= 5 // to submit again after a crash of the leader
	}
	ctx, cancel := context.WithTimeout(n.endpoint.alive, patience)
	defer cancel()
	switch roll := c.dice.float(); {
	case roll < 0.25:
		return c.write(ctx, n, input{kind: put, tag: tag, value: c.value()})
	case roll < 0.45:
		return c.write(ctx, n, input{kind: swap, tag: tag, value: c.value(), expect: c.values[tag]})
	case roll < 0.50:
		return c.write(ctx, n, input{kind: untag, tag: tag})
	case roll < 0.75:
		return c.readLinearizable(ctx, n, tag)
	case roll < 0.95:
		return c.readSession(ctx, n, tag)
	default:
		return c.readBounded(n, tag)
	}
}

// value is a digest that no other call writes.
func (c *client) value() string {
	return digest.FromString(fmt.Sprintf("%d/%d", c.id, c.calls)).String()
}

func (c *client) write(ctx context.Context, n *node, in input) bool {
	called := c.fleet.history.now()
	select {
	case c.fleet.writing <- struct{}{}:
	default: // nobody waits to break something in the middle of a write
	}
	index, err := n.cluster.Apply(ctx, c.command(in))
	if n.endpoint.alive.Err() != nil && errdef.ReasonOf(err) != "" { // it died before it could answer
		err = errdef.Wrap(errdef.OutcomeUnknown, err, "the node has crashed")
	}
	out := output{outcome: done}
	switch errdef.ReasonOf(err) {
	case "":
		c.index = max(c.index, index)
		c.values[in.tag] = in.value
	case errdef.TagConflict, errdef.NotFound:
		out.outcome = refused
	case errdef.OutcomeUnknown:
		out.outcome = unknown
	case errdef.NoQuorum, errdef.Overloaded, errdef.Deadline, errdef.Canceled, errdef.NotLeader, errdef.Unavailable,
		errdef.RequestExpired, errdef.Removed:
		return false // certainly not applied: if it was, a read will see what nobody wrote
	default:
		c.fleet.failures.add("client %d: %v fails with %v", c.id, in, err)
		return false
	}
	c.fleet.history.add(c.id, called, in, out)
	return out.outcome != unknown
}

// command writes as a node does that has asked an upstream; every tenth time with the manifest: a catalog
// of all that was ever written would cost more than everything else here. The clock of each client is wrong in its own way.
func (c *client) command(in input) catalog.Command {
	if in.kind == untag {
		return catalog.Untag{Tenant: reference.DefaultTenant, Repository: repository, Name: reference.Tag(in.tag)}
	}
	content := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(in.value), Size: int64(len(in.value)),
	}
	observed := time.Now().Add(time.Duration(c.id-3) * time.Hour).UTC()
	update := catalog.TagUpdate{Name: reference.Tag(in.tag), Descriptor: content, Freshness: catalog.Freshness{
		Observed: observed, FreshUntil: observed.Add(time.Hour), StaleUntil: observed.Add(24 * time.Hour),
	}}
	if in.kind == swap {
		update.Expect, update.ExpectAbsent = digest.Digest(in.expect), in.expect == ""
	}
	publish := catalog.Publish{
		Tenant: reference.DefaultTenant, Repository: repository, Source: catalog.SourceUpstream, Time: observed,
		Holder: "holder", Tags: []catalog.TagUpdate{update},
	}
	if c.calls%10 == 0 {
		publish.Blobs, publish.Manifests = []ocispec.Descriptor{content}, []catalog.Manifest{{Descriptor: content}}
	}
	return publish
}

func (c *client) readLinearizable(ctx context.Context, n *node, tag string) bool {
	called := c.fleet.history.now()
	index, err := c.readIndex(ctx, n)
	if err != nil {
		return c.allow("a linearizable read", err)
	}
	snapshot, err := n.catalog.Wait(ctx, index)
	if err != nil {
		return c.allow("a linearizable read", err)
	}
	value := c.look(snapshot, tag)
	c.fleet.history.add(c.id, called, input{kind: read, tag: tag}, output{outcome: done, value: value})
	return true
}

// readIndex has the planted bug of a leader that trusts itself.
func (c *client) readIndex(ctx context.Context, n *node) (catalog.LogIndex, error) {
	if c.fleet.options.Planted == StaleLeader && n.cluster.Status().Leader == n.cluster.Self() {
		return n.catalog.Snapshot().Index(), nil
	}
	return n.cluster.ReadIndex(ctx)
}

// readSession reads what this node has, once it has all that this client has seen.
func (c *client) readSession(ctx context.Context, n *node, tag string) bool {
	snapshot, err := n.catalog.Wait(ctx, c.index)
	if err != nil {
		return c.allow("a session read", err)
	}
	if snapshot.Index() < c.index {
		c.fleet.failures.add("client %d at index %d was shown index %d", c.id, c.index, snapshot.Index())
	}
	c.look(snapshot, tag)
	return true
}

func (c *client) readBounded(n *node, tag string) bool {
	if n.cluster.ContactAge() > staleness {
		return false
	}
	seen := n.catalog.Snapshot()
	if seen.Index() < c.index {
		return true // a bounded read may be older than the session; this one is not shown
	}
	c.look(seen, tag)
	return true
}

// look reads a tag from one catalog, which is never older than what the client saw before.
func (c *client) look(snapshot *catalog.Snapshot, name string) (value string) {
	tag, found := snapshot.Tag(reference.DefaultTenant, repository, reference.Tag(name))
	if found {
		value = tag.Descriptor.Digest.String()
		if last := c.revisions[name]; tag.Revision < last && snapshot.Index() >= c.index {
			c.fleet.failures.add("client %d saw revision %d of %s, then %d", c.id, last, name, tag.Revision)
		}
		c.revisions[name] = max(c.revisions[name], tag.Revision)
	}
	c.index = max(c.index, snapshot.Index())
	c.values[name] = value
	if first, differs := c.fleet.history.show(snapshot.Index(), name, value); differs {
		c.fleet.failures.add("%s is %s at index %d on one node, %s on another one",
			name, short(value), snapshot.Index(), short(first))
	}
	return value
}

// allow says whether the failure of a read is one that a client must live with.
func (c *client) allow(what string, err error) bool {
	switch errdef.ReasonOf(err) {
	case errdef.NoQuorum, errdef.NotLeader, errdef.Unavailable, errdef.Deadline, errdef.Canceled, errdef.NotReady,
		errdef.OutcomeUnknown, errdef.Removed:
	default:
		c.fleet.failures.add("client %d: %s fails with %v", c.id, what, err)
	}
	return false
}
