package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/e2e/command"
	"github.com/ocistern/ocistern/e2e/nodes"
)

// The whole benchmark with small numbers: it measures every figure, whatever comes out.
func TestQuick(t *testing.T) {
	dir := t.TempDir()
	binary := os.Getenv("OCISTERN_BIN")
	if binary == "" {
		built, err := nodes.Build(t.Context(), "../../..", dir)
		if err != nil {
			t.Fatal(err)
		}
		binary = built
	}
	var out, progress bytes.Buffer
	if code := benchmark().Run(t.Context(), []string{"-quick", "-ocistern", binary, "-dir", dir}, &out, &progress); code != command.Done {
		t.Fatalf("exit status %d\n%s\n%s", code, out.String(), progress.String())
	}
	for _, want := range []string{
		`^the registry is up .* requests +429s +timeouts +failures +p50 +p95 +p99$`, `^the registry is down for the middle third `,
		`^direct +\d+ +\d+ +\d+ +\d+ +\d`, `^own cache, 10 s +\d+ `, `^Ocistern +\d+ `,
		`^timeouts .* <=0 (reached|short)$`, `^failures .* <=0 (reached|short)$`, `^registry-requests +\d+ .* <=51 (reached|short)$`,
		`^timeouts-registry-down .* <=0 (reached|short)$`, `^failures-registry-down .* <=0 (reached|short)$`,
		`^\d of 5 reached\n\z`,
	} {
		if !regexp.MustCompile("(?m)" + want).MatchString(out.String()) {
			t.Errorf("no line matches %s in\n%s", want, out.String())
		}
	}
	// The registry is away for a third of the time: those who ask it themselves notice.
	direct := regexp.MustCompile(`(?m)^direct +\d+ +\d+ +(\d+) +(\d+) `).FindAllStringSubmatch(out.String(), -1)
	if len(direct) != 2 || direct[1][1] == "0" && direct[1][2] == "0" {
		t.Errorf("nobody noticed that the registry was down:\n%s", out.String())
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"-ocistern", "/nowhere"}, {"-unknown"}, {"-pods", "0"}, {"-deadline", "1s"}} {
		var out, progress bytes.Buffer
		if code := benchmark().Run(t.Context(), args, &out, &progress); code != command.Usage || progress.Len() == 0 || out.Len() > 0 {
			t.Errorf("%v: exit status %d, printed %q and %q", args, code, out.String(), progress.String())
		}
	}
}

// told is a source that counts, and fails when it is told to.
type told struct {
	asked int
	err   error
}

func (s *told) Resolve(context.Context, string) (ocispec.Descriptor, error) {
	s.asked++
	return ocispec.Descriptor{Digest: digest.FromString("image")}, s.err
}

func (s *told) Predecessors(context.Context, ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	s.asked++
	return make([]ocispec.Descriptor, signatures-1), s.err
}

func (s *told) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	s.asked++
	return io.NopCloser(strings.NewReader("body")), s.err
}

// The peer's cache keeps answers for their time, and no failures.
func TestCached(t *testing.T) {
	inner := &told{err: errors.New("planted")}
	c := newCached(inner, time.Hour)
	body := ocispec.Descriptor{Digest: digest.FromString("body"), Size: 4}
	ask := func() (err error) {
		_, first := c.Resolve(t.Context(), tag)
		_, second := c.Predecessors(t.Context(), body)
		_, third := c.Fetch(t.Context(), body)
		return errors.Join(first, second, third)
	}
	if err := ask(); err == nil {
		t.Error("failures are hidden")
	}
	inner.err = nil
	for range 3 {
		if err := ask(); err != nil {
			t.Error(err)
		}
	}
	if inner.asked != 6 {
		t.Errorf("asked %d times, want 3 that failed and 3 that were kept", inner.asked)
	}
	c.life = 0
	c.known = map[string]answer{}
	if err := errors.Join(ask(), ask()); err != nil || inner.asked != 12 {
		t.Errorf("asked %d times: %v", inner.asked, err)
	}
}

// A verification that sees too few signatures, or another image, fails.
func TestVerifyRefuses(t *testing.T) {
	for want, of := range map[string]image{
		"has 4 signatures, want 5": {"fleet/app", digest.FromString("image")},
		"want sha256:":             {"fleet/app", digest.FromString("another image")},
	} {
		if err := verify(t.Context(), &told{}, of); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
