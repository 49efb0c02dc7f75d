package node

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/ocistern/ocistern/internal/config"
	"github.com/ocistern/ocistern/internal/credential"
	"github.com/ocistern/ocistern/internal/egress"
	"github.com/ocistern/ocistern/internal/fill"
	"github.com/ocistern/ocistern/internal/reference"
)

// What is configured for an upstream reaches it, and nothing that is configured for another one does.
func TestUpstreamsOf(t *testing.T) {
	allow := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	got := upstreamsOf(config.Config{
		Upstreams: []config.Upstream{
			{Name: "a", URL: "https://a", CAFile: "/ca", CertificateFile: "/cert", KeyFile: "/key", AllowAddresses: allow},
			{Name: "b", URL: "http://b"}, {Name: "c", URL: "https://c"},
		},
		Credentials: []config.Credential{
			{Upstream: "a", DockerConfig: "/docker"}, {Upstream: "a", Tenant: "t1", TokenFile: "/token"},
			{Upstream: "b", Tenant: "t1", UsernameFile: "/user", PasswordFile: "/password"},
			{Upstream: "b", IdentityTokenFile: "/identity"},
		},
	})
	want := []fill.Upstream{
		{
			Name: "a", URL: "https://a", Allow: allow,
			TLS: egress.TLS{CAFile: "/ca", CertificateFile: "/cert", KeyFile: "/key"},
			Credential: credential.Config{
				Files:   credential.Files{DockerConfig: "/docker"},
				Tenants: map[reference.Tenant]credential.Files{"t1": {TokenFile: "/token"}},
			},
		},
		{Name: "b", URL: "http://b", Credential: credential.Config{
			Files:   credential.Files{IdentityTokenFile: "/identity"},
			Tenants: map[reference.Tenant]credential.Files{"t1": {UsernameFile: "/user", PasswordFile: "/password"}},
		}},
		{Name: "c", URL: "https://c"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
