package config

import (
	"slices"

	"github.com/ocistern/ocistern/internal/reference"
)

// Credential tells where a node finds what it shows an upstream. It holds names of files, never what is in them.
type Credential struct {
	Upstream string           // name of a configured one
	Tenant   reference.Tenant // whose requests it is for; empty for all tenants without one of their own

	// One of these is set: a docker config.json, a name with its password, a bearer token, or a token that a
	// token service exchanges for one.
	DockerConfig               string
	UsernameFile, PasswordFile string
	TokenFile                  string
	IdentityTokenFile          string
}

func credentials() *structure {
	return structureOf("credentials", "credential", []column[Credential]{
		{name: "upstream", must: true, doc: "name of the upstream that it is for",
			set: into(upstreamName, func(c *Credential) *string { return &c.Upstream })},
		{name: "tenant", doc: "tenant whose requests it is for (default all that have none of their own)",
			set: into(tenant, func(c *Credential) *reference.Tenant { return &c.Tenant })},
		{name: "docker-config", doc: "a docker config.json, credential helpers included",
			set: into(path, func(c *Credential) *string { return &c.DockerConfig })},
		{name: "username-file", doc: "file with a name; needs password-file",
			set: into(path, func(c *Credential) *string { return &c.UsernameFile })},
		{name: "password-file", doc: "file with its password",
			set: into(path, func(c *Credential) *string { return &c.PasswordFile })},
		{name: "token-file", doc: "file with a bearer token for the registry",
			set: into(path, func(c *Credential) *string { return &c.TokenFile })},
		{name: "identity-token-file", doc: "file with a token that a token service exchanges (OAuth2 refresh token)",
			set: into(path, func(c *Credential) *string { return &c.IdentityTokenFile })},
	}, addCredential)
}

func addCredential(c *Config, item Item, added Credential) error {
	if !slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Name == added.Upstream }) {
		return item.wrong("a credential is for %q, which is not a configured upstream", added.Upstream).
			WithRemedy("add it to upstreams, or correct the name")
	}
	if slices.ContainsFunc(c.Credentials, func(other Credential) bool {
		return other.Upstream == added.Upstream && other.Tenant == added.Tenant
	}) {
		return item.wrong("upstream %s has two credentials for one tenant", added.Upstream).WithRemedy("keep one of them")
	}
	ways := 0
	for _, given := range []string{added.DockerConfig, added.UsernameFile + added.PasswordFile, added.TokenFile, added.IdentityTokenFile} {
		if given != "" {
			ways++
		}
	}
	if ways != 1 || (added.UsernameFile == "") != (added.PasswordFile == "") {
		return item.wrong("a credential for %s is not one of the four kinds", added.Upstream).
			WithRemedy("give docker-config, or username-file and password-file, or token-file, or identity-token-file")
	}
	c.Credentials = append(c.Credentials, added)
	return nil
}

func tenant(v Value) (reference.Tenant, error) {
	parsed, err := reference.ParseTenant(v.Texts[0])
	if err != nil {
		return "", v.invalid("is not a tenant").WithRemedy("lower-case letters, digits and -, at most 63, for example team-a")
	}
	return parsed, nil
}
