package credential

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/secretfile"
)

// dockerConfig is what a config.json says about credentials.
type dockerConfig struct {
	Auths       map[string]json.RawMessage `json:"auths"`
	CredsStore  string                     `json:"credsStore"`
	CredHelpers map[string]string          `json:"credHelpers"`
}

// fromDockerConfig looks in docker's order: the helper of the host, the helper of all hosts, the file itself.
//
// oras-go can do this too, but its store reads files of any size, takes a file that is gone for an empty one, repeats
// the decoded password in an error, and gives helpers our stderr and as long as they like. It decodes the entry.
func (s *Source) fromDockerConfig(ctx context.Context) (auth.Credential, error) {
	path := s.files.DockerConfig
	content, err := secretfile.Read(path)
	if err != nil {
		return auth.EmptyCredential, errdef.Wrap(errdef.UpstreamUnauthorized, err, "a credential cannot be read")
	}
	var config dockerConfig
	if err := json.Unmarshal(content, &config); err != nil {
		return auth.EmptyCredential, unusable(path, "is no docker configuration")
	}
	server := credentials.ServerAddressFromHostname(s.host)
	for _, helper := range []string{config.CredHelpers[server], config.CredHelpers[s.host], config.CredsStore} {
		if helper != "" {
			return s.fromHelper(ctx, helper, server)
		}
	}
	entry, ok := config.entry(server)
	if !ok {
		return auth.EmptyCredential, nil
	}
	alone, err := json.Marshal(map[string]any{"auths": map[string]json.RawMessage{s.host: entry}})
	if err != nil {
		return auth.EmptyCredential, unusable(path, "has an unusable entry for "+s.host)
	}
	store, err := credentials.NewMemoryStoreFromDockerConfig(alone)
	if err != nil {
		return auth.EmptyCredential, unusable(path, "has an unusable entry for "+s.host)
	}
	return store.Get(ctx, s.host)
}

// entry finds the entry of a server: by its name, else by one with a scheme or API version, as docker wrote long ago.
func (c dockerConfig) entry(server string) (json.RawMessage, bool) {
	if exact, ok := c.Auths[server]; ok {
		return exact, true
	}
	for _, key := range slices.Sorted(maps.Keys(c.Auths)) {
		if hostOf(key) == hostOf(server) {
			return c.Auths[key], true
		}
	}
	return nil, false
}

// hostOf returns the host of a key of auths; "" for one that is for a part of a registry only, as podman writes them.
func hostOf(key string) string {
	host, path, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://"), "/")
	switch strings.Trim(path, "/") {
	case "", "v1", "v2":
		return host
	}
	return ""
}
