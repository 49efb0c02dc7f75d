package catalog

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// MaxCommandItems bounds the descriptors that one command may carry.
const MaxCommandItems = 20_000

// validate refuses, with reason COMMAND_INVALID, what would leave a half-true catalog. It looks at the command alone,
// so every node decides alike.
func (c Publish) validate() error {
	if c.Source != SourceUpstream && c.Source != SourcePushed {
		return errdef.New(errdef.CommandInvalid, "publish: unknown source %d", c.Source)
	}
	if c.Holder == "" && len(c.Blobs) > 0 {
		return errdef.New(errdef.CommandInvalid, "publish: blobs without a holder")
	}
	descriptors := append([]ocispec.Descriptor(nil), c.Blobs...)
	for _, m := range c.Manifests {
		descriptors = append(append(descriptors, m.Descriptor), m.Children...)
		if m.Subject != "" {
			descriptors = append(descriptors, ocispec.Descriptor{Digest: m.Subject})
		}
	}
	for _, t := range c.Tags {
		descriptors = append(descriptors, t.Descriptor)
		if _, err := reference.ParseTag(string(t.Name)); err != nil {
			return errdef.Wrap(errdef.CommandInvalid, err, "publish")
		}
		if t.Expect != "" && t.ExpectAbsent {
			return errdef.New(errdef.CommandInvalid, "publish: tag %s is expected both absent and at %s", t.Name, t.Expect)
		}
	}
	for _, l := range c.Referrers {
		descriptors = append(append(descriptors, l.Descriptors...), ocispec.Descriptor{Digest: l.Subject})
	}
	if err := validateName(c.Tenant, c.Repository, len(descriptors)); err != nil {
		return err
	}
	for _, desc := range descriptors {
		if _, err := reference.ParseDigest(desc.Digest.String()); err != nil {
			return errdef.Wrap(errdef.CommandInvalid, err, "publish")
		}
		if desc.Size < 0 {
			return errdef.New(errdef.CommandInvalid, "publish: %s has size %d", desc.Digest, desc.Size)
		}
	}
	return nil
}

func (c RecordAbsence) validate() error {
	if err := validateName(c.Tenant, c.Repository, len(c.Absences)); err != nil {
		return err
	}
	for _, a := range c.Absences {
		var err error
		switch a.Kind {
		case AbsentTag:
			_, err = reference.ParseTag(a.Reference)
		case AbsentManifest, AbsentBlob:
			_, err = reference.ParseDigest(a.Reference)
		default:
			err = errdef.New(errdef.CommandInvalid, "unknown kind %d", a.Kind)
		}
		if err != nil {
			return errdef.Wrap(errdef.CommandInvalid, err, "absence of %q", a.Reference)
		}
	}
	return nil
}

func validateName(t reference.Tenant, r reference.Repository, items int) error {
	if _, err := reference.ParseTenant(string(t)); err != nil {
		return errdef.Wrap(errdef.CommandInvalid, err, "tenant")
	}
	if _, err := reference.ParseRepository(string(r)); err != nil {
		return errdef.Wrap(errdef.CommandInvalid, err, "repository")
	}
	return validateItems(items)
}

func validateHolder(node NodeID, digests []digest.Digest) error {
	if node == "" {
		return errdef.New(errdef.CommandInvalid, "the holder's node id is empty")
	}
	return validateItems(len(digests))
}

func validateItems(items int) error {
	if items > MaxCommandItems {
		return errdef.New(errdef.CommandInvalid, "command carries %d items", items).WithRemedy("at most %d", MaxCommandItems)
	}
	return nil
}
