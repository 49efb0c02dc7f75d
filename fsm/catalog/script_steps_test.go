package catalog_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/fsm/catalog"
	"github.com/ocistern/ocistern/internal/reference"
)

// arguments are the words of a step after the first: plain words, then key=value pairs, keys possibly repeated.
type arguments struct {
	words  []string
	values map[string][]string
}

func parseArguments(words []string) arguments {
	a := arguments{values: map[string][]string{}}
	for _, word := range words {
		if key, value, ok := strings.Cut(word, "="); ok {
			a.values[key] = append(a.values[key], value)
		} else {
			a.words = append(a.words, word)
		}
	}
	return a
}

func (a arguments) word(i int) string {
	if i < len(a.words) {
		return a.words[i]
	}
	return ""
}

func (a arguments) value(key, otherwise string) string {
	if values := a.values[key]; len(values) > 0 {
		return values[0]
	}
	return otherwise
}

func (a arguments) tenant() reference.Tenant         { return reference.Tenant(a.value("tenant", "default")) }
func (a arguments) repository() reference.Repository { return reference.Repository(a.word(0)) }

// seconds reads a time as seconds after the epoch; zero time when the step gives none.
func (a arguments) seconds(key string) time.Time {
	text := a.value(key, "")
	if text == "" {
		return time.Time{}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err) // the script is wrong
	}
	return time.Unix(seconds, 0).UTC()
}

// freshness reads at=, fresh= and stale=.
func (a arguments) freshness() catalog.Freshness {
	return catalog.Freshness{Observed: a.seconds("at"), FreshUntil: a.seconds("fresh"), StaleUntil: a.seconds("stale")}
}

// descriptor reads NAME[:SIZE[:MEDIATYPE]]; the size is 100 when the step gives none.
func (s *script) descriptor(text string) ocispec.Descriptor {
	parts := strings.SplitN(text+"::", ":", 3)
	size, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		size = 100
	}
	return ocispec.Descriptor{Digest: s.digest(parts[0]), Size: size, MediaType: strings.Trim(parts[2], ":")}
}

func (s *script) descriptors(text string) []ocispec.Descriptor {
	var descriptors []ocispec.Descriptor
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		descriptors = append(descriptors, s.descriptor(part))
	}
	return descriptors
}

// publish REPOSITORY [pushed] [holder=NODE] [blobs=D,...] [manifest=D[>CHILD,...][<SUBJECT]]... [tag=TAG:D[?D|?-]]...
// [referrers=SUBJECT:D,...]... [at= fresh= stale=]; D is a descriptor. "?D" demands that the tag points at D, "?-"
// that it does not exist.
func (s *script) publish(a arguments) catalog.Command {
	c := catalog.Publish{
		Tenant: a.tenant(), Repository: a.repository(), Source: catalog.SourceUpstream, Time: a.seconds("at"),
		Holder: catalog.NodeID(a.value("holder", "")), Blobs: s.descriptors(a.value("blobs", "")), Seen: a.seen(),
	}
	switch a.word(1) {
	case "pushed":
		c.Source = catalog.SourcePushed
	case "guessed":
		c.Source = 7
	}
	for _, text := range a.values["manifest"] {
		text, subject, _ := strings.Cut(text, "<")
		text, children, _ := strings.Cut(text, ">")
		c.Manifests = append(c.Manifests, catalog.Manifest{
			Descriptor: s.descriptor(text), Subject: s.digest(subject), Children: s.descriptors(children),
		})
	}
	for _, text := range a.values["tag"] {
		text, expected, _ := strings.Cut(text, "?")
		name, target, _ := strings.Cut(text, ":")
		tag := catalog.TagUpdate{Name: reference.Tag(name), Descriptor: s.descriptor(target), Freshness: a.freshness()}
		if tag.ExpectAbsent = strings.HasPrefix(expected, "-"); tag.ExpectAbsent {
			expected = expected[1:]
		}
		tag.Expect = s.digest(expected)
		c.Tags = append(c.Tags, tag)
	}
	for _, text := range a.values["referrers"] {
		subject, list, _ := strings.Cut(text, ":")
		c.Referrers = append(c.Referrers, catalog.Referrers{
			Subject: s.digest(subject), Descriptors: s.descriptors(list), Freshness: a.freshness(),
		})
	}
	return c
}

// absent REPOSITORY [tag=TAG]... [manifest=D]... [blob=D]... [at= fresh= stale=]
func (s *script) recordAbsence(a arguments) catalog.Command {
	c := catalog.RecordAbsence{Tenant: a.tenant(), Repository: a.repository(), Seen: a.seen()}
	add := func(kind catalog.AbsenceKind, ref string) {
		c.Absences = append(c.Absences, catalog.Absence{Kind: kind, Reference: ref, Freshness: a.freshness()})
	}
	for _, tag := range a.values["tag"] {
		add(catalog.AbsentTag, tag)
	}
	for _, name := range a.values["manifest"] {
		add(catalog.AbsentManifest, s.digest(name).String())
	}
	for _, name := range a.values["blob"] {
		add(catalog.AbsentBlob, s.digest(name).String())
	}
	return c
}

func (s *script) digests(names []string) []digest.Digest {
	var digests []digest.Digest
	for _, name := range names {
		digests = append(digests, s.digest(name))
	}
	return digests
}

// hold NODE D...
func (s *script) addHolder(a arguments) catalog.Command {
	return catalog.AddHolder{Node: catalog.NodeID(a.value("node", "")), Digests: s.digests(a.words)}
}

// drop NODE D..., or all=yes
func (s *script) removeHolder(a arguments) catalog.Command {
	all := a.value("all", "") == "yes"
	return catalog.RemoveHolder{Node: catalog.NodeID(a.value("node", "")), Digests: s.digests(a.words), All: all}
}

// untag REPOSITORY TAG
func (s *script) untag(a arguments) catalog.Command {
	return catalog.Untag{Tenant: a.tenant(), Repository: a.repository(), Name: reference.Tag(a.word(1))}
}

// delete REPOSITORY D
func (s *script) deleteManifest(a arguments) catalog.Command {
	return catalog.DeleteManifest{Tenant: a.tenant(), Repository: a.repository(), Digest: s.digest(a.word(1))}
}

// tag REPOSITORY TAG
func (s *script) showTag(a arguments) string {
	tag, ok := s.catalog.Snapshot().Tag(a.tenant(), a.repository(), reference.Tag(a.word(1)))
	if !ok {
		return "none"
	}
	text := fmt.Sprintf("%s %s since %s revision %d %s", tag.Descriptor.Digest, showSource(tag.Source),
		showTime(tag.Since), tag.Revision, showFreshness(tag.Freshness))
	for _, event := range tag.History {
		text += fmt.Sprintf("\n  was %s since %s revision %d", event.Digest, showTime(event.Since), event.Revision)
	}
	return text
}

// tags REPOSITORY [after=TAG] [limit=N]
func (s *script) showTags(a arguments) string {
	limit, err := strconv.Atoi(a.value("limit", "100"))
	if err != nil {
		panic(err) // the script is wrong
	}
	var names []string
	after := reference.Tag(a.value("after", ""))
	for _, tag := range s.catalog.Snapshot().Tags(a.tenant(), a.repository(), after, limit) {
		names = append(names, string(tag.Name))
	}
	return fmt.Sprint(names)
}

// manifest REPOSITORY D
func (s *script) showManifest(a arguments) string {
	m, ok := s.catalog.Snapshot().Manifest(a.tenant(), a.repository(), s.digest(a.word(1)))
	if !ok {
		return "none"
	}
	text := fmt.Sprintf("%s %s", m.Descriptor.Digest, showSource(m.Source))
	if m.Subject != "" {
		text += " of " + m.Subject.String()
	}
	return text + showDescriptors(" with", m.Children)
}

// referrers REPOSITORY D
func (s *script) showReferrers(a arguments) string {
	list, ok := s.catalog.Snapshot().Referrers(a.tenant(), a.repository(), s.digest(a.word(1)))
	if !ok {
		return "not known"
	}
	return "list" + showDescriptors("", list.Descriptors) + " " + showFreshness(list.Freshness)
}

// absence REPOSITORY tag|manifest|blob TAG|D
func (s *script) showAbsence(a arguments) string {
	kinds := map[string]catalog.AbsenceKind{
		"tag": catalog.AbsentTag, "manifest": catalog.AbsentManifest, "blob": catalog.AbsentBlob,
	}
	kind, ref := kinds[a.word(1)], a.word(2)
	if kind != catalog.AbsentTag {
		ref = s.digest(ref).String()
	}
	absence, ok := s.catalog.Snapshot().Absence(a.tenant(), a.repository(), kind, ref)
	if !ok {
		return "none"
	}
	return "absent " + showFreshness(absence.Freshness)
}

// link REPOSITORY D
func (s *script) showLink(a arguments) string {
	desc, ok := s.catalog.Snapshot().Link(a.tenant(), a.repository(), s.digest(a.word(1)))
	if !ok {
		return "none"
	}
	return strings.TrimSpace(fmt.Sprintf("%d bytes %s", desc.Size, desc.MediaType))
}

// blob D
func (s *script) showBlob(a arguments) string {
	b, ok := s.catalog.Snapshot().Blob(s.digest(a.word(0)))
	if !ok {
		return "none"
	}
	return fmt.Sprintf("%d bytes on %v, %d links", b.Size, b.Holders, b.Links)
}

func (s *script) showStats(arguments) string { return fmt.Sprintf("%+v", s.catalog.Snapshot().Stats()) }

// records prints every record as JSON.
func (s *script) showRecords(arguments) string {
	var text strings.Builder
	for record := range s.catalog.Snapshot().Records() {
		line, err := json.Marshal(record)
		if err != nil {
			panic(err) // records are plain data
		}
		text.Write(append(line, '\n'))
	}
	return text.String()
}

func showSource(source catalog.Source) string {
	return map[catalog.Source]string{catalog.SourceUpstream: "upstream", catalog.SourcePushed: "pushed"}[source]
}

func showDescriptors(before string, descriptors []ocispec.Descriptor) string {
	text := ""
	for _, desc := range descriptors {
		text += " " + desc.Digest.String()
	}
	if text == "" {
		return ""
	}
	return before + text
}

func showTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return strconv.FormatInt(t.Unix(), 10)
}

func showFreshness(f catalog.Freshness) string {
	return fmt.Sprintf("(observed %s fresh %s stale %s)",
		showTime(f.Observed), showTime(f.FreshUntil), showTime(f.StaleUntil))
}

// restoredFrom returns a catalog made from the records of a snapshot.
func restoredFrom(s *catalog.Snapshot) (*catalog.Catalog, error) {
	restored := catalog.New()
	err := restored.Restore(s.Header(), func(yield func(catalog.Record, error) bool) {
		for record := range s.Records() {
			if !yield(record, nil) {
				return
			}
		}
	})
	return restored, err
}

func digestOf(s *catalog.Snapshot) digest.Digest {
	dgst, err := s.Digest()
	if err != nil {
		panic(err) // records are plain data
	}
	return dgst
}
