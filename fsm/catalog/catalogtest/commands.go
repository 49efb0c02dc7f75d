// Package catalogtest draws random commands for tests of the catalog and of what feeds it. It is used by tests only
// and imports nothing but the catalog and its words.
package catalogtest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/reference"
)

// Commands is an endless sequence of commands that its seed determines. They speak of few names, so that they meet:
// they overwrite, contradict and delete each other. Some are invalid. Not safe for concurrent use.
type Commands struct {
	random *rand.Rand
	now    time.Time
}

// NewCommands returns the sequence of a seed.
func NewCommands(seed uint64) *Commands {
	return &Commands{random: rand.New(rand.NewPCG(seed, 0)), now: time.Unix(1_700_000_000, 0).UTC()}
}

// Next returns the next command. Its times go forward by seconds.
func (c *Commands) Next() catalog.Command {
	c.now = c.now.Add(time.Duration(c.random.IntN(2000)) * time.Millisecond)
	switch c.random.IntN(18) {
	case 0:
		return catalog.SetCluster{ClusterID: "cluster"}
	case 1, 2:
		return catalog.RecordAbsence{Tenant: c.tenant(), Repository: c.repository(), Absences: several(c, c.absence)}
	case 3, 4:
		return catalog.AddHolder{Node: c.node(), Digests: several(c, c.digest)}
	case 5:
		return catalog.RemoveHolder{Node: c.node(), Digests: several(c, c.digest), All: c.random.IntN(8) == 0}
	case 6:
		return catalog.Untag{Tenant: c.tenant(), Repository: c.repository(), Name: c.tag()}
	case 7:
		return catalog.DeleteManifest{Tenant: c.tenant(), Repository: c.repository(), Digest: c.digest()}
	case 8:
		return c.invalidate()
	case 9:
		return catalog.SetBackoff{Backoff: catalog.Backoff{
			Upstream: []string{"up.test", "other.test", ""}[c.random.IntN(3)], Until: c.freshness().FreshUntil,
			Reason: "UPSTREAM_THROTTLED", Node: c.node(),
		}}
	default:
		return c.publish()
	}
}

func (c *Commands) invalidate() catalog.Invalidate {
	command := catalog.Invalidate{Tenant: c.tenant(), Repository: c.repository(), Below: c.random.IntN(4) == 0}
	switch c.random.IntN(3) {
	case 0:
		command.Tag = c.tag()
	case 1:
		command.Digest = c.digest()
	}
	return command
}

func (c *Commands) publish() catalog.Publish {
	p := catalog.Publish{
		Tenant: c.tenant(), Repository: c.repository(), Source: catalog.Source(1 + c.random.IntN(2)),
		Time: c.now, Holder: c.node(), Blobs: several(c, c.descriptor),
		Manifests: several(c, c.manifest), Referrers: several(c, c.referrers), Seen: catalog.LogIndex(c.random.IntN(300)),
	}
	if c.random.IntN(4) > 0 { // else some manifest is likely not held, and the command refused
		for _, m := range p.Manifests {
			p.Blobs = append(p.Blobs, m.Descriptor)
		}
	}
	for _, m := range p.Manifests {
		p.Tags = append(p.Tags, c.tagUpdate(m.Descriptor))
	}
	if c.random.IntN(20) == 0 {
		p.Repository = "NOT/A/NAME"
	}
	return p
}

func (c *Commands) tagUpdate(desc ocispec.Descriptor) catalog.TagUpdate {
	update := catalog.TagUpdate{Name: c.tag(), Descriptor: desc, Freshness: c.freshness()}
	switch c.random.IntN(12) {
	case 0:
		update.Expect = c.digest()
	case 1:
		update.ExpectAbsent = true
	}
	return update
}

func (c *Commands) manifest() catalog.Manifest {
	m := catalog.Manifest{Descriptor: c.descriptor(), Children: several(c, c.descriptor)}
	if c.random.IntN(2) == 0 {
		m.Subject = c.digest()
	}
	return m
}

func (c *Commands) referrers() catalog.Referrers {
	return catalog.Referrers{Subject: c.digest(), Descriptors: several(c, c.descriptor), Freshness: c.freshness()}
}

func (c *Commands) absence() catalog.Absence {
	kind := catalog.AbsenceKind(1 + c.random.IntN(3))
	ref := c.digest().String()
	if kind == catalog.AbsentTag {
		ref = string(c.tag())
	}
	return catalog.Absence{Kind: kind, Reference: ref, Freshness: c.freshness()}
}

func (c *Commands) descriptor() ocispec.Descriptor {
	desc := ocispec.Descriptor{
		MediaType: fmt.Sprintf("application/x-%d", c.random.IntN(3)), Digest: c.digest(), Size: c.random.Int64N(1 << 40),
	}
	if c.random.IntN(3) == 0 {
		desc.ArtifactType = "application/x-signature"
		desc.Annotations = map[string]string{"a": fmt.Sprint(c.random.IntN(9)), "b": "é"}
	}
	if c.random.IntN(5) == 0 {
		desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8", OSFeatures: []string{"x"}}
	}
	return desc
}

func (c *Commands) freshness() catalog.Freshness {
	fresh := c.now.Add(time.Duration(c.random.IntN(60)) * time.Second)
	f := catalog.Freshness{Observed: c.now, FreshUntil: fresh}
	if c.random.IntN(2) == 0 {
		f.StaleUntil = fresh.Add(time.Minute)
	}
	return f
}

func (c *Commands) digest() digest.Digest {
	algorithm := digest.SHA256
	if c.random.IntN(8) == 0 {
		algorithm = digest.SHA512
	}
	return algorithm.FromString(fmt.Sprint(c.random.IntN(24)))
}

func (c *Commands) tenant() reference.Tenant {
	return []reference.Tenant{"default", "a", "default-b"}[c.random.IntN(3)]
}

func (c *Commands) repository() reference.Repository {
	return []reference.Repository{"up.test/app", "up.test/app/sub", "hosted"}[c.random.IntN(3)]
}

func (c *Commands) tag() reference.Tag { return reference.Tag(fmt.Sprintf("v%d", c.random.IntN(12))) }
func (c *Commands) node() catalog.NodeID {
	return catalog.NodeID(fmt.Sprintf("n%d", 1+c.random.IntN(4)))
}

// several draws none to three values.
func several[T any](c *Commands, draw func() T) []T {
	var drawn []T
	for range c.random.IntN(4) {
		drawn = append(drawn, draw())
	}
	return drawn
}
