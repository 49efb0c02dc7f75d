package fsm

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
	"github.com/ocistern/ocistern/internal/reference"
)

// decoder turns messages into the catalog's values. Each method passes its message to check, and keeps the first
// thing that is not understood in err. Not safe for concurrent use.
type decoder struct {
	err    error
	shared map[string]string
}

// maxShared and maxSharedLength bound the strings a decoder remembers.
const (
	maxShared       = 4096
	maxSharedLength = 256
)

func newDecoder() decoder { return decoder{shared: map[string]string{}} }

// finish returns the first error and makes the decoder ready for the next message.
func (d *decoder) finish() error {
	err := d.err
	d.err = nil
	return err
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = errdef.New(errdef.CommandUnknown, format, args...)
	}
}

// check refuses a message with fields that this build does not know.
func (d *decoder) check(m proto.Message) {
	if reflected := m.ProtoReflect(); len(reflected.GetUnknown()) > 0 {
		d.fail("%s has a field that this build does not know", reflected.Descriptor().FullName())
	}
}

// share returns one copy of strings that very many records have in common: repositories, media types, node ids.
func (d *decoder) share(text string) string {
	if known, ok := d.shared[text]; ok {
		return known
	}
	if len(text) > maxSharedLength {
		return text
	}
	if len(d.shared) >= maxShared {
		clear(d.shared)
	}
	d.shared[text] = text
	return text
}

// kind reads one command, whose version is the feature level that brought its kind.
func (d *decoder) kind(message *logv1.Command) catalog.Command {
	d.check(message)
	switch kind := message.GetKind().(type) {
	case *logv1.Command_RaiseLevel:
		return d.raiseLevel(message, kind.RaiseLevel)
	case *logv1.Command_Invalidate:
		return d.invalidate(message, kind.Invalidate)
	case *logv1.Command_SetBackoff:
		d.version(message, catalog.LevelRequests)
		d.check(kind.SetBackoff)
		return catalog.SetBackoff{Backoff: *d.backoff(kind.SetBackoff.GetBackoff())}
	case *logv1.Command_NoteFormers:
		d.version(message, catalog.LevelRequests)
		d.check(kind.NoteFormers)
		return catalog.NoteFormers{ClusterIDs: kind.NoteFormers.GetClusterIds()}
	default:
		d.version(message, catalog.LevelFirst)
		return d.first(message)
	}
}

// first reads a command of a kind that every build knows.
func (d *decoder) first(message *logv1.Command) catalog.Command {
	switch kind := message.GetKind().(type) {
	case *logv1.Command_SetCluster:
		d.check(kind.SetCluster)
		return catalog.SetCluster{ClusterID: kind.SetCluster.GetClusterId()}
	case *logv1.Command_Publish:
		return d.publish(kind.Publish)
	case *logv1.Command_RecordAbsence:
		m := kind.RecordAbsence
		d.check(m)
		return catalog.RecordAbsence{
			Tenant: d.tenant(m.GetTenant()), Repository: d.repository(m.GetRepository()),
			Absences: mapped(m.GetAbsences(), d.absenceOfCommand), Seen: catalog.LogIndex(m.GetSeen()),
		}
	case *logv1.Command_AddHolder:
		m := kind.AddHolder
		d.check(m)
		return catalog.AddHolder{Node: d.node(m.GetNode()), Digests: mapped(m.GetDigests(), toDigest)}
	case *logv1.Command_RemoveHolder:
		m := kind.RemoveHolder
		d.check(m)
		return catalog.RemoveHolder{Node: d.node(m.GetNode()), Digests: mapped(m.GetDigests(), toDigest), All: m.GetAll()}
	case *logv1.Command_Untag:
		m := kind.Untag
		d.check(m)
		return catalog.Untag{
			Tenant: d.tenant(m.GetTenant()), Repository: d.repository(m.GetRepository()), Name: reference.Tag(m.GetName()),
		}
	case *logv1.Command_DeleteManifest:
		m := kind.DeleteManifest
		d.check(m)
		return catalog.DeleteManifest{
			Tenant: d.tenant(m.GetTenant()), Repository: d.repository(m.GetRepository()), Digest: toDigest(m.GetDigest()),
		}
	default:
		d.fail("it is of no kind that this build knows")
		return nil
	}
}

// raiseLevel refuses a level that this build does not know: it would not understand what follows.
func (d *decoder) raiseLevel(message *logv1.Command, m *logv1.RaiseLevel) catalog.Command {
	d.check(m)
	d.version(message, catalog.LevelRequests)
	if catalog.FeatureLevel(m.GetLevel()) > MaxLevel {
		d.fail("the cluster goes to feature level %d, this build knows %d", m.GetLevel(), MaxLevel)
	}
	return catalog.RaiseLevel{Level: catalog.FeatureLevel(m.GetLevel())}
}

func (d *decoder) publish(m *logv1.Publish) catalog.Publish {
	d.check(m)
	return catalog.Publish{
		Tenant: d.tenant(m.GetTenant()), Repository: d.repository(m.GetRepository()), Source: d.source(m.GetSource()),
		Time: d.time(m.GetTime()), Holder: d.node(m.GetHolder()),
		Blobs: mapped(m.GetBlobs(), d.descriptor), Manifests: mapped(m.GetManifests(), d.manifest),
		Tags: mapped(m.GetTags(), d.tagUpdate), Referrers: mapped(m.GetReferrers(), d.referrers),
		Seen: catalog.LogIndex(m.GetSeen()),
	}
}

func (d *decoder) tagUpdate(m *logv1.TagUpdate) catalog.TagUpdate {
	d.check(m)
	return catalog.TagUpdate{
		Name: reference.Tag(m.GetName()), Descriptor: d.descriptor(m.GetDescriptor_()),
		Freshness: d.freshness(m.GetFreshness()), Expect: toDigest(m.GetExpect()), ExpectAbsent: m.GetExpectAbsent(),
	}
}

func (d *decoder) manifest(m *logv1.Manifest) catalog.Manifest {
	d.check(m)
	return catalog.Manifest{
		Descriptor: d.descriptor(m.GetDescriptor_()), Subject: toDigest(m.GetSubject()),
		Children: mapped(m.GetChildren(), d.descriptor), Source: d.source(m.GetSource()),
	}
}

func (d *decoder) referrers(m *logv1.Referrers) catalog.Referrers {
	d.check(m)
	return catalog.Referrers{
		Subject: toDigest(m.GetSubject()), Descriptors: mapped(m.GetDescriptors(), d.descriptor),
		Freshness: d.freshness(m.GetFreshness()),
	}
}

func (d *decoder) absence(m *logv1.Absence) catalog.Absence {
	d.check(m)
	if _, known := logv1.AbsenceKind_name[int32(m.GetKind())]; !known {
		d.fail("absence kind %d is not known", m.GetKind())
	}
	return catalog.Absence{
		Kind: catalog.AbsenceKind(m.GetKind()), Reference: m.GetReference(), Freshness: d.freshness(m.GetFreshness()),
		History: mapped(m.GetHistory(), d.event),
	}
}

// absenceOfCommand refuses a history: a node derives it.
func (d *decoder) absenceOfCommand(m *logv1.Absence) catalog.Absence {
	if len(m.GetHistory()) > 0 {
		d.fail("an absence with a history")
	}
	return d.absence(m)
}

func (d *decoder) invalidate(message *logv1.Command, m *logv1.Invalidate) catalog.Command {
	d.version(message, catalog.LevelRequests)
	d.check(m)
	return catalog.Invalidate{
		Tenant: d.tenant(m.GetTenant()), Repository: d.repository(m.GetRepository()), Below: m.GetBelow(),
		Tag: reference.Tag(m.GetTag()), Digest: toDigest(m.GetDigest()),
	}
}

func (d *decoder) backoff(m *logv1.Backoff) *catalog.Backoff {
	d.check(m)
	return &catalog.Backoff{
		Upstream: d.share(m.GetUpstream()), Until: d.time(m.GetUntil()), Reason: d.share(m.GetReason()), Node: d.node(m.GetNode()),
	}
}

func (d *decoder) event(m *logv1.TagEvent) catalog.TagEvent {
	d.check(m)
	return catalog.TagEvent{
		Digest: toDigest(m.GetDigest()), Since: d.time(m.GetSince()), Revision: catalog.LogIndex(m.GetRevision()), By: d.node(m.GetBy()),
	}
}

func (d *decoder) descriptor(m *logv1.Descriptor) ocispec.Descriptor {
	d.check(m)
	desc := ocispec.Descriptor{
		MediaType: d.share(m.GetMediaType()), Digest: toDigest(m.GetDigest()), Size: m.GetSize(),
		ArtifactType: d.share(m.GetArtifactType()), Annotations: m.GetAnnotations(),
	}
	if p := m.GetPlatform(); p != nil {
		d.check(p)
		desc.Platform = &ocispec.Platform{
			Architecture: d.share(p.GetArchitecture()), OS: d.share(p.GetOs()), OSVersion: d.share(p.GetOsVersion()),
			OSFeatures: p.GetOsFeatures(), Variant: d.share(p.GetVariant()),
		}
	}
	return desc
}

func (d *decoder) source(s logv1.Source) catalog.Source {
	if _, known := logv1.Source_name[int32(s)]; !known {
		d.fail("source %d is not known", s)
	}
	return catalog.Source(s)
}

func (d *decoder) freshness(m *logv1.Freshness) catalog.Freshness {
	if m == nil {
		return catalog.Freshness{}
	}
	d.check(m)
	return catalog.Freshness{
		Observed: d.time(m.GetObserved()), FreshUntil: d.time(m.GetFreshUntil()), StaleUntil: d.time(m.GetStaleUntil()),
	}
}

func (d *decoder) time(m *timestamppb.Timestamp) time.Time {
	if m == nil {
		return time.Time{}
	}
	d.check(m)
	if err := m.CheckValid(); err != nil {
		d.fail("%v", err)
	}
	return m.AsTime()
}

func (d *decoder) tenant(text string) reference.Tenant { return reference.Tenant(d.share(text)) }
func (d *decoder) repository(text string) reference.Repository {
	return reference.Repository(d.share(text))
}
func (d *decoder) node(text string) catalog.NodeID { return catalog.NodeID(d.share(text)) }

func toDigest(text string) digest.Digest { return digest.Digest(text) }
