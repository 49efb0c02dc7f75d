package credential

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// helper installs docker-credential-test, a shell script, and returns a Source that uses it.
func helper(t *testing.T, script string) *Source {
	t.Helper()
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "docker-credential-test"), "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return source(t, Files{DockerConfig: file(t, `{"credHelpers":{"a.test":"test"},"credsStore":"other"}`)}, "a.test")
}

func TestHelper(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         auth.Credential
		broken       bool
	}{
		{"password", `[ "$1" = get ] && read server; echo '{"ServerURL":"'$server'","Username":"'$server'","Secret":"` + planted + `"}'`,
			auth.Credential{Username: "a.test", Password: planted}, false},
		{"identity token", `echo '{"Username":"<token>","Secret":"` + planted + `"}'`, auth.Credential{RefreshToken: planted}, false},
		{"has none", `echo credentials not found in native keychain; exit 1`, auth.EmptyCredential, false},
		{"fails", `echo ` + planted + `; echo ` + planted + ` >&2; exit 1`, auth.EmptyCredential, true},
		{"no JSON", `echo ` + planted, auth.EmptyCredential, true},
		{"no secret", `echo '{"Username":"planted"}'`, auth.EmptyCredential, true},
		{"too much", `while echo '"` + planted + `"'; do :; done 2>/dev/null`, auth.EmptyCredential, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := helper(t, c.script)
			expect(t, s, c.want, c.broken)
			if _, err := s.Credential(t.Context()); err != nil && strings.Contains(err.Error(), "within") {
				t.Errorf("was stopped only by the time: %v", err)
			}
		})
	}
}

// What a helper writes to its stderr reaches no log: ours is none of its business.
func TestHelperWritesNothingToOurStderr(t *testing.T) {
	s := helper(t, `echo `+planted+` >&2; echo '{"Username":"a","Secret":"b"}'`)
	path := file(t, "")
	replaced, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer replaced.Close()
	ours := os.Stderr
	os.Stderr = replaced
	_, err = s.Credential(t.Context())
	os.Stderr = ours
	if content, _ := os.ReadFile(path); err != nil || len(content) > 0 {
		t.Errorf("stderr has %q, error %v", content, err)
	}
}

// A helper that hangs, and one whose child holds its output, end in time.
func TestHelperIsBoundedInTime(t *testing.T) {
	for _, script := range []string{"exec sleep 60", "sleep 60 & exit 0", "sleep 60"} {
		helper(t, script)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		began := time.Now()
		if _, err := runHelper(ctx, "test", "a.test"); err == nil {
			t.Errorf("%s: no error", script)
		}
		cancel()
		if took := time.Since(began); took > helperGrace+5*time.Second {
			t.Errorf("%s: took %s", script, took)
		}
	}
}

// However many wait, one process runs at a time.
func TestCallersShareAHelper(t *testing.T) {
	dir := t.TempDir()
	s := helper(t, `cd `+dir+`; mkdir running || touch overlap; sleep 0.05; rmdir running; echo '{"Username":"a","Secret":"b"}'`)
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() {
			if _, err := s.Credential(t.Context()); err != nil {
				t.Errorf("caller %d: %v", n, err)
			}
		})
	}
	all.Wait()
	if _, err := os.Stat(filepath.Join(dir, "overlap")); err == nil {
		t.Error("two processes at once")
	}
}

// A caller that leaves does not end the process that others wait for.
func TestACallerLeavesAHelper(t *testing.T) {
	dir := t.TempDir()
	s := helper(t, `cd `+dir+`; touch running; while [ ! -e go ]; do sleep 0.02; done; touch done; echo '{"Username":"a","Secret":"b"}'`)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := s.Credential(ctx)
		left <- err
	}()
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	eventually(t, "the helper runs", func() bool { return exists("running") })
	leave()
	if err := <-left; err == nil {
		t.Error("the caller has not left")
	}
	write(t, filepath.Join(dir, "go"), "")
	eventually(t, "the helper ends by itself", func() bool { return exists("done") })
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(helperTime)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}
