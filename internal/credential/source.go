package credential

import (
	"context"
	"strings"

	"golang.org/x/sync/singleflight"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/ocistern/ocistern/internal/errdef"
	"github.com/ocistern/ocistern/internal/secretfile"
)

// Source is the credential of one upstream for one tenant. It is safe for concurrent use.
type Source struct {
	files   Files
	host    string
	watch   *secretfile.Watch
	helpers singleflight.Group // however many requests wait for a helper, one process runs
}

// NewSource returns the Source for a host (with port, where it is not that of the scheme). It reads no file: a node
// whose secrets are broken starts and serves what it has. It fails with CONFIG_INVALID when files contradict each
// other.
func NewSource(files Files, host string) (*Source, error) {
	if err := files.validate(); err != nil {
		return nil, err
	}
	var paths []string
	for _, path := range []string{
		files.DockerConfig, files.UsernameFile, files.PasswordFile, files.TokenFile, files.IdentityTokenFile,
	} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return &Source{files: files, host: host, watch: secretfile.NewWatch(paths...)}, nil
}

// Revision returns a number that changes when a file was replaced. What was got with an older credential must then be
// forgotten. It costs a stat for each file.
func (s *Source) Revision() uint64 { return s.watch.Revision() }

// Credential reads the credential, which is empty when none is configured for the host. It fails with
// UPSTREAM_UNAUTHORIZED when a file cannot be read, has not what it should have, or a helper fails: there is no falling
// back to an older credential, nor to none.
func (s *Source) Credential(ctx context.Context) (auth.Credential, error) {
	const attempts = 3 // files that are replaced together are read together
	var found auth.Credential
	var err error
	for range attempts {
		before := s.watch.Revision()
		found, err = s.read(ctx)
		if s.watch.Revision() == before {
			break
		}
	}
	return found, err
}

func (s *Source) read(ctx context.Context) (found auth.Credential, err error) {
	switch {
	case s.files.DockerConfig != "":
		return s.fromDockerConfig(ctx)
	case s.files.UsernameFile != "":
		if found.Username, err = readUsername(s.files.UsernameFile); err != nil {
			return auth.EmptyCredential, err
		}
		found.Password, err = readLine(s.files.PasswordFile)
	case s.files.TokenFile != "":
		found.AccessToken, err = readToken(s.files.TokenFile)
	case s.files.IdentityTokenFile != "":
		found.RefreshToken, err = readToken(s.files.IdentityTokenFile)
	}
	if err != nil {
		return auth.EmptyCredential, err
	}
	return found, nil
}

// readLine returns a file without the line ends that editors leave.
func readLine(path string) (string, error) {
	content, err := secretfile.Read(path)
	if err != nil {
		return "", errdef.Wrap(errdef.UpstreamUnauthorized, err, "a credential cannot be read")
	}
	line := strings.TrimRight(string(content), "\r\n")
	if line == "" {
		return "", unusable(path, "is empty")
	}
	return line, nil
}

func readUsername(path string) (string, error) {
	name, err := readLine(path)
	if err == nil && strings.Contains(name, ":") { // Basic authentication ends the name there
		return "", unusable(path, "has a username with a colon")
	}
	return name, err
}

// readToken returns a token that fits into an HTTP header.
func readToken(path string) (string, error) {
	token, err := readLine(path)
	if err == nil && strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", unusable(path, "has more than one token")
	}
	return token, err
}

func unusable(path, why string) error {
	return errdef.New(errdef.UpstreamUnauthorized, "the credential file %s %s", path, why)
}
