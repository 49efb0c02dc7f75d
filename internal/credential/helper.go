package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/ocistern/ocistern/internal/errdef"
)

// The protocol of docker's credential helpers (github.com/docker/docker-credential-helpers).
const (
	helperPrefix   = "docker-credential-"
	helperNotFound = "credentials not found in native keychain"
	helperToken    = "<token>" // the username where the secret is an identity token
)

const (
	helperTime  = 10 * time.Second
	helperGrace = time.Second // for what a killed helper left running and holding its output
	helperBytes = 64 << 10
)

var helperName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// fromHelper asks the program docker-credential-NAME. Callers at the same time share one process, which a caller that
// leaves does not end.
func (s *Source) fromHelper(ctx context.Context, name, server string) (auth.Credential, error) {
	if !helperName.MatchString(name) {
		return auth.EmptyCredential, unusable(s.files.DockerConfig, "names an impossible credential helper")
	}
	shared := s.helpers.DoChan(name, func() (any, error) {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), helperTime)
		defer cancel()
		return runHelper(detached, name, server)
	})
	select {
	case result := <-shared:
		if result.Err != nil {
			return auth.EmptyCredential, result.Err
		}
		return result.Val.(auth.Credential), nil
	case <-ctx.Done():
		return auth.EmptyCredential, ctx.Err()
	}
}

// runHelper repeats nothing of what the helper writes: it may be a secret.
func runHelper(ctx context.Context, name, server string) (auth.Credential, error) {
	failed := func(why string) error {
		return errdef.New(errdef.UpstreamUnauthorized, "the credential helper %s%s %s", helperPrefix, name, why).
			WithRemedy("run it by hand as the node's user: echo %s | %s%s get", server, helperPrefix, name)
	}
	var out bytes.Buffer
	command := exec.CommandContext(ctx, helperPrefix+name, "get")
	command.Stdin = strings.NewReader(server)
	command.Stdout = &limitedWriter{to: &out, left: helperBytes} // stderr goes nowhere
	command.WaitDelay = helperGrace
	err := command.Run()
	var exited *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return auth.EmptyCredential, failed("did not answer within " + helperTime.String())
	case errors.As(err, &exited) && strings.TrimSpace(out.String()) == helperNotFound:
		return auth.EmptyCredential, nil
	case errors.As(err, &exited):
		return auth.EmptyCredential, failed("failed: " + exited.String())
	case errors.Is(err, exec.ErrNotFound):
		return auth.EmptyCredential, failed("is not in the PATH of the node")
	case err != nil:
		return auth.EmptyCredential, failed("could not be run")
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || answer.Secret == "" {
		return auth.EmptyCredential, failed("gave no credential")
	}
	if answer.Username == helperToken {
		return auth.Credential{RefreshToken: answer.Secret}, nil
	}
	return auth.Credential{Username: answer.Username, Password: answer.Secret}, nil
}

// limitedWriter fails when more is written than it may take.
type limitedWriter struct {
	to   io.Writer
	left int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return w.to.Write(p)
}
