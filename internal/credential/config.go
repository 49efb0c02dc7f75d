// Package credential is what a node shows an upstream registry: read from files that may be replaced at any time, one
// Source for an upstream as one tenant sees it.
//
// It sends nothing and keeps nothing: a Source reads its files, or asks its credential helper, each time a credential is
// needed, which package fill needs only when the upstream asks for one. No error has a secret in it: none repeats what
// is in a file, what a helper wrote, or the text of a JSON decoder (which quotes).
package credential

import (
	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/reference"
)

// Config says which credentials an upstream is shown. Its zero value is none: the upstream is asked anonymously.
type Config struct {
	Files
	// Tenants has the files of tenants that have their own; empty Files mean that the tenant is anonymous there. All
	// other tenants use Files.
	Tenants map[reference.Tenant]Files
}

// Files names the files of one credential. At most one way may be used: DockerConfig, or UsernameFile with
// PasswordFile, or TokenFile, or IdentityTokenFile. Line ends at the end of a file do not count.
type Files struct {
	// DockerConfig is the path of a config.json as docker and oras write it: auths, credsStore and credHelpers. An
	// upstream that is not in it is asked anonymously.
	DockerConfig string
	// UsernameFile and PasswordFile are for Basic authentication and for token services.
	UsernameFile, PasswordFile string
	// TokenFile has a bearer token that is sent to the registry as it is.
	TokenFile string
	// IdentityTokenFile has a token that a token service exchanges for bearer tokens (OAuth2 refresh token).
	IdentityTokenFile string
}

func (f Files) validate() error {
	ways := 0
	for _, used := range []bool{
		f.DockerConfig != "", f.UsernameFile != "" || f.PasswordFile != "", f.TokenFile != "", f.IdentityTokenFile != "",
	} {
		if used {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errdef.New(errdef.ConfigInvalid, "credentials are configured in %d ways", ways).
			WithRemedy("keep one: a docker config, a username and a password, a token, or an identity token")
	case (f.UsernameFile == "") != (f.PasswordFile == ""):
		return errdef.New(errdef.ConfigInvalid, "credentials need a file for the username and one for the password")
	}
	return nil
}
