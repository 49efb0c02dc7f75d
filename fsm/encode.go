package fsm

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
)

// encoder turns the catalog's values into messages. It keeps the first value that has no encoding in err.
type encoder struct {
	err error
}

func encodeCommand(command catalog.Command) (*logv1.Command, error) {
	e := &encoder{}
	message := &logv1.Command{Version: uint32(catalog.LevelFirst)}
	switch c := command.(type) {
	case catalog.SetCluster:
		message.Kind = &logv1.Command_SetCluster{SetCluster: &logv1.SetCluster{ClusterId: c.ClusterID}}
	case catalog.Publish:
		message.Kind = &logv1.Command_Publish{Publish: e.publish(c)}
	case catalog.RecordAbsence:
		message.Kind = &logv1.Command_RecordAbsence{RecordAbsence: &logv1.RecordAbsence{
			Tenant: string(c.Tenant), Repository: string(c.Repository), Absences: mapped(c.Absences, e.absence),
			Seen: uint64(c.Seen),
		}}
	case catalog.AddHolder:
		message.Kind = &logv1.Command_AddHolder{AddHolder: &logv1.AddHolder{
			Node: string(c.Node), Digests: mapped(c.Digests, digest.Digest.String),
		}}
	case catalog.RemoveHolder:
		message.Kind = &logv1.Command_RemoveHolder{RemoveHolder: &logv1.RemoveHolder{
			Node: string(c.Node), Digests: mapped(c.Digests, digest.Digest.String), All: c.All,
		}}
	case catalog.Untag:
		message.Kind = &logv1.Command_Untag{Untag: &logv1.Untag{
			Tenant: string(c.Tenant), Repository: string(c.Repository), Name: string(c.Name),
		}}
	case catalog.DeleteManifest:
		message.Kind = &logv1.Command_DeleteManifest{DeleteManifest: &logv1.DeleteManifest{
			Tenant: string(c.Tenant), Repository: string(c.Repository), Digest: c.Digest.String(),
		}}
	case catalog.RaiseLevel:
		message.Version = uint32(catalog.LevelRequests)
		message.Kind = &logv1.Command_RaiseLevel{RaiseLevel: &logv1.RaiseLevel{Level: uint32(c.Level)}}
	case catalog.Invalidate:
		message.Version = uint32(catalog.LevelRequests)
		message.Kind = &logv1.Command_Invalidate{Invalidate: &logv1.Invalidate{
			Tenant: string(c.Tenant), Repository: string(c.Repository), Below: c.Below, Tag: string(c.Tag), Digest: c.Digest.String(),
		}}
	case catalog.SetBackoff:
		message.Version = uint32(catalog.LevelRequests)
		message.Kind = &logv1.Command_SetBackoff{SetBackoff: &logv1.SetBackoff{Backoff: e.backoff(&c.Backoff)}}
	case catalog.NoteFormers:
		message.Version = uint32(catalog.LevelRequests)
		message.Kind = &logv1.Command_NoteFormers{NoteFormers: &logv1.NoteFormers{ClusterIds: c.ClusterIDs}}
	default:
		return nil, errdef.New(errdef.CommandInvalid, "%T is not a command", command)
	}
	return message, e.err
}

func (e *encoder) publish(c catalog.Publish) *logv1.Publish {
	return &logv1.Publish{
		Tenant: string(c.Tenant), Repository: string(c.Repository), Source: e.source(c.Source),
		Time: e.time(c.Time), Holder: string(c.Holder),
		Blobs: mapped(c.Blobs, e.descriptor), Manifests: mapped(c.Manifests, e.manifest),
		Tags: mapped(c.Tags, e.tagUpdate), Referrers: mapped(c.Referrers, e.referrers), Seen: uint64(c.Seen),
	}
}

func (e *encoder) tagUpdate(u catalog.TagUpdate) *logv1.TagUpdate {
	return &logv1.TagUpdate{
		Name: string(u.Name), Descriptor_: e.descriptor(u.Descriptor), Freshness: e.freshness(u.Freshness),
		Expect: u.Expect.String(), ExpectAbsent: u.ExpectAbsent,
	}
}

func (e *encoder) manifest(m catalog.Manifest) *logv1.Manifest {
	return &logv1.Manifest{
		Descriptor_: e.descriptor(m.Descriptor), Subject: m.Subject.String(),
		Children: mapped(m.Children, e.descriptor), Source: e.source(m.Source),
	}
}

func (e *encoder) referrers(r catalog.Referrers) *logv1.Referrers {
	return &logv1.Referrers{
		Subject: r.Subject.String(), Descriptors: mapped(r.Descriptors, e.descriptor),
		Freshness: e.freshness(r.Freshness),
	}
}

func (e *encoder) absence(a catalog.Absence) *logv1.Absence {
	kind := logv1.AbsenceKind(a.Kind)
	if _, known := logv1.AbsenceKind_name[int32(kind)]; !known {
		e.fail("absence kind %d", a.Kind)
	}
	return &logv1.Absence{Kind: kind, Reference: a.Reference, Freshness: e.freshness(a.Freshness)}
}

func (e *encoder) backoff(b *catalog.Backoff) *logv1.Backoff {
	return &logv1.Backoff{Upstream: b.Upstream, Until: e.time(b.Until), Reason: b.Reason, Node: string(b.Node)}
}

// descriptor leaves out URLs and Data: the catalog names content, it does not carry it.
func (e *encoder) descriptor(d ocispec.Descriptor) *logv1.Descriptor {
	message := &logv1.Descriptor{
		MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size,
		ArtifactType: d.ArtifactType, Annotations: d.Annotations,
	}
	if p := d.Platform; p != nil {
		message.Platform = &logv1.Platform{
			Architecture: p.Architecture, Os: p.OS, OsVersion: p.OSVersion, OsFeatures: p.OSFeatures, Variant: p.Variant,
		}
	}
	return message
}

func (e *encoder) source(s catalog.Source) logv1.Source {
	if _, known := logv1.Source_name[int32(s)]; !known {
		e.fail("source %d", s)
	}
	return logv1.Source(s)
}

func (e *encoder) freshness(f catalog.Freshness) *logv1.Freshness {
	if f == (catalog.Freshness{}) {
		return nil
	}
	return &logv1.Freshness{
		Observed: e.time(f.Observed), FreshUntil: e.time(f.FreshUntil), StaleUntil: e.time(f.StaleUntil),
	}
}

func (e *encoder) time(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	message := timestamppb.New(t)
	if err := message.CheckValid(); err != nil {
		e.fail("time %v", t)
	}
	return message
}

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = errdef.New(errdef.CommandInvalid, format+" has no encoding", args...)
	}
}

// mapped returns f of each element; nil for none, so that empty and absent are one value.
func mapped[A, B any](in []A, f func(A) B) []B {
	if len(in) == 0 {
		return nil
	}
	out := make([]B, len(in))
	for i, value := range in {
		out[i] = f(value)
	}
	return out
}
