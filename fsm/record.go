package fsm

import (
	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/errdef"
	logv1 "github.com/ocistern/ocistern/internal/proto/ocistern/log/v1"
	"github.com/ocistern/ocistern/internal/reference"
)

func encodeRecord(r catalog.Record) (*logv1.SnapshotRecord, error) {
	e := &encoder{}
	message := &logv1.SnapshotRecord{Tenant: string(r.Tenant), Repository: string(r.Repository)}
	switch {
	case r.Tag != nil:
		message.Kind = &logv1.SnapshotRecord_Tag{Tag: e.tag(r.Tag)}
	case r.Manifest != nil:
		message.Kind = &logv1.SnapshotRecord_Manifest{Manifest: e.manifest(*r.Manifest)}
	case r.Referrers != nil:
		message.Kind = &logv1.SnapshotRecord_Referrers{Referrers: e.referrers(*r.Referrers)}
	case r.Absence != nil:
		absence := e.absence(*r.Absence)
		absence.History = mapped(r.Absence.History, e.event)
		message.Kind = &logv1.SnapshotRecord_Absence{Absence: absence}
	case r.Link != nil:
		link := &logv1.LinkRecord{Digest: r.Link.Digest.String(), MediaType: r.Link.MediaType, Size: r.Link.Size}
		message.Kind = &logv1.SnapshotRecord_Link{Link: link}
	case r.Blob != nil:
		holders := mapped(r.Blob.Holders, func(node catalog.NodeID) string { return string(node) })
		blob := &logv1.BlobRecord{Digest: r.Blob.Digest.String(), Size: r.Blob.Size, Holders: holders}
		message.Kind = &logv1.SnapshotRecord_Blob{Blob: blob}
	case r.Outcome != nil:
		message.Kind = &logv1.SnapshotRecord_Outcome{Outcome: &logv1.OutcomeRecord{
			RequestId: r.Outcome.ID[:], Index: uint64(r.Outcome.Index), Refused: string(r.Outcome.Refused),
		}}
	case r.Backoff != nil:
		message.Kind = &logv1.SnapshotRecord_Backoff{Backoff: e.backoff(r.Backoff)}
	case r.Invalidation != nil:
		message.Kind = &logv1.SnapshotRecord_Invalidation{Invalidation: &logv1.InvalidationRecord{
			Tenant: string(r.Invalidation.Tenant), Repository: string(r.Invalidation.Repository), Below: r.Invalidation.Below,
			Index: uint64(r.Invalidation.Index),
		}}
	}
	return message, e.err
}

func (e *encoder) tag(t *catalog.Tag) *logv1.TagRecord {
	return &logv1.TagRecord{
		Name: string(t.Name), Descriptor_: e.descriptor(t.Descriptor), Source: e.source(t.Source),
		Freshness: e.freshness(t.Freshness), Since: e.time(t.Since), Revision: uint64(t.Revision),
		By: string(t.By), History: mapped(t.History, e.event),
	}
}

func (e *encoder) event(event catalog.TagEvent) *logv1.TagEvent {
	return &logv1.TagEvent{
		Digest: event.Digest.String(), Since: e.time(event.Since), Revision: uint64(event.Revision), By: string(event.By),
	}
}

func (d *decoder) record(m *logv1.SnapshotRecord) catalog.Record {
	d.check(m)
	r := catalog.Record{Tenant: d.tenant(m.GetTenant()), Repository: d.repository(m.GetRepository())}
	switch kind := m.GetKind().(type) {
	case *logv1.SnapshotRecord_Tag:
		r.Tag = d.tag(kind.Tag)
	case *logv1.SnapshotRecord_Manifest:
		manifest := d.manifest(kind.Manifest)
		r.Manifest = &manifest
	case *logv1.SnapshotRecord_Referrers:
		referrers := d.referrers(kind.Referrers)
		r.Referrers = &referrers
	case *logv1.SnapshotRecord_Absence:
		absence := d.absence(kind.Absence)
		r.Absence = &absence
	case *logv1.SnapshotRecord_Link:
		d.check(kind.Link)
		r.Link = &catalog.Link{
			Digest: toDigest(kind.Link.GetDigest()), MediaType: d.share(kind.Link.GetMediaType()), Size: kind.Link.GetSize(),
		}
	case *logv1.SnapshotRecord_Blob:
		d.check(kind.Blob)
		r.Blob = &catalog.Blob{
			Digest: toDigest(kind.Blob.GetDigest()), Size: kind.Blob.GetSize(), Holders: mapped(kind.Blob.GetHolders(), d.node),
		}
	case *logv1.SnapshotRecord_Outcome:
		d.check(kind.Outcome)
		r.Outcome = &catalog.Outcome{
			ID: d.requestID(kind.Outcome.GetRequestId()), Index: catalog.LogIndex(kind.Outcome.GetIndex()),
			Refused: errdef.Reason(d.share(kind.Outcome.GetRefused())),
		}
		if len(kind.Outcome.GetRequestId()) == 0 {
			d.fail("outcome of no request")
		}
	case *logv1.SnapshotRecord_Backoff:
		r.Backoff = d.backoff(kind.Backoff)
	case *logv1.SnapshotRecord_Invalidation:
		d.check(kind.Invalidation)
		r.Invalidation = &catalog.Invalidation{
			Tenant: d.tenant(kind.Invalidation.GetTenant()), Repository: d.repository(kind.Invalidation.GetRepository()),
			Below: kind.Invalidation.GetBelow(), Index: catalog.LogIndex(kind.Invalidation.GetIndex()),
		}
	default:
		d.fail("record of no kind that this build knows")
	}
	return r
}

func (d *decoder) tag(m *logv1.TagRecord) *catalog.Tag {
	d.check(m)
	return &catalog.Tag{
		Name: reference.Tag(m.GetName()), Descriptor: d.descriptor(m.GetDescriptor_()), Source: d.source(m.GetSource()),
		Freshness: d.freshness(m.GetFreshness()), Since: d.time(m.GetSince()),
		Revision: catalog.LogIndex(m.GetRevision()),
		By:       d.node(m.GetBy()), History: mapped(m.GetHistory(), d.event),
	}
}
