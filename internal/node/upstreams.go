package node

import (
	"github.com/ocistern/ocistern/internal/budget"
	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/credential"
	"github.com/ocistern/ocistern/internal/egress"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/reference"
)

// upstreamsOf gives each configured upstream the credentials that are for it.
func upstreamsOf(cfg config.Config) []fill.Upstream {
	upstreams := make([]fill.Upstream, 0, len(cfg.Upstreams))
	for _, u := range cfg.Upstreams {
		upstreams = append(upstreams, fill.Upstream{
			Name: u.Name, URL: u.URL, Credential: credentialOf(cfg.Credentials, u.Name), Allow: u.AllowAddresses,
			TLS:    egress.TLS{CAFile: u.CAFile, CertificateFile: u.CertificateFile, KeyFile: u.KeyFile},
			Limits: budget.Limits{Concurrency: u.Concurrency, PerSecond: u.RequestsPerSecond, Burst: u.Burst},
		})
	}
	return upstreams
}

func credentialOf(all []config.Credential, upstream string) credential.Config {
	found := credential.Config{}
	for _, c := range all {
		files := credential.Files{
			DockerConfig: c.DockerConfig, UsernameFile: c.UsernameFile, PasswordFile: c.PasswordFile,
			TokenFile: c.TokenFile, IdentityTokenFile: c.IdentityTokenFile,
		}
		switch {
		case c.Upstream != upstream:
		case c.Tenant == "":
			found.Files = files
		default:
			if found.Tenants == nil {
				found.Tenants = map[reference.Tenant]credential.Files{}
			}
			found.Tenants[c.Tenant] = files
		}
	}
	return found
}
