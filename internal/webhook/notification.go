package webhook

import (
	"encoding/json"
	"strings"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
	"github.com/ocistern/ocistern/internal/registry"
)

// notification is either form. Fields that are not known are left alone: registries add their own.
type notification struct {
	// Events is the envelope of CNCF distribution (docs, "Work with notifications").
	Events []event `json:"events"`
	// Names is the plain form: as `ocistern invalidate` takes them.
	Names []string `json:"names"`
}

type event struct {
	Action string `json:"action"`
	Target struct {
		MediaType  string `json:"mediaType"`
		Digest     string `json:"digest"`
		Repository string `json:"repository"`
		Tag        string `json:"tag"`
	} `json:"target"`
}

// parse returns what a notification is about. It fails with UsageInvalid, or as registry.ParseScope does.
func parse(upstream string, body []byte) ([]registry.Scope, error) {
	var n notification
	if err := json.Unmarshal(body, &n); err != nil {
		return nil, errdef.Wrap(errdef.UsageInvalid, err, "the notification is not JSON of a known form")
	}
	switch {
	case len(n.Events) > registry.MaxScopes, len(n.Names) > registry.MaxScopes:
		return nil, errdef.New(errdef.UsageInvalid, "the notification has more than %d items", registry.MaxScopes)
	case n.Events != nil && n.Names != nil, n.Events == nil && n.Names == nil:
		return nil, errdef.New(errdef.UsageInvalid, "the notification has no events, or names beside them").
			WithRemedy(`{"events":[...]} as CNCF distribution sends it, or {"names":["ghcr.io/org/app:v1"]}`)
	case n.Events != nil && upstream == "":
		return nil, errdef.New(errdef.UsageInvalid, "the path does not say which upstream has sent the events").
			WithRemedy("send them to %sNAME, NAME being the upstream as it is configured", Path)
	}
	scopes := map[registry.Scope]bool{}
	var found []registry.Scope
	add := func(scope registry.Scope, err error) error {
		if err == nil && !scopes[scope] {
			scopes[scope] = true
			found = append(found, scope)
		}
		return err
	}
	for _, name := range n.Names {
		if err := add(registry.ParseScope(name)); err != nil {
			return nil, err
		}
	}
	for _, e := range n.Events {
		if !e.changes() {
			continue
		}
		if err := add(e.scope(upstream)); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// changes tells whether an event may change what a name means. Layers are named by their digests only.
func (e event) changes() bool {
	return e.Action == "push" || e.Action == "delete" || e.Action == "mount"
}

// scope is the tag of an event; without one, it is about content. A new manifest may be a referrer, and the event does not
// say of what: the whole repository is asked about again.
func (e event) scope(upstream string) (registry.Scope, error) {
	repository, err := reference.ParseRepository(upstream + "/" + e.Target.Repository)
	if err != nil {
		return registry.Scope{}, err
	}
	scope := registry.Scope{Repository: repository}
	switch {
	case e.Target.Tag != "":
		scope.Tag, err = reference.ParseTag(e.Target.Tag)
	case e.Target.Digest != "" && !isManifest(e.Target.MediaType):
		scope.Digest, err = reference.ParseDigest(e.Target.Digest)
	}
	return scope, err
}

// isManifest tells whether a media type may be that of a manifest. An event without one may be about anything.
func isManifest(mediaType string) bool {
	return mediaType == "" || strings.Contains(mediaType, "manifest") || strings.Contains(mediaType, ".index.")
}
