package fill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ocistern/ocistern/internal/errdef"
)

func TestManifestIsOneRequest(t *testing.T) {
	r := newTestRegistry(t)
	image, _ := r.pushImage("org/app", "v1", []byte("layer"))
	for name, spoil := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"plain": nil,
		"without length": func(w http.ResponseWriter, _ *http.Request) bool {
			w.(http.Flusher).Flush()
			return false
		},
		"without digest header": func(w http.ResponseWriter, req *http.Request) bool {
			r.serve(headerlessWriter{w}, req)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			u, observer := testUpstream(t, r.upstream())
			if name == "without length" {
				spoil = chunked(r)
			}
			r.setSpoil(spoil)
			for _, ref := range []string{"v1", image.Digest.String()} {
				desc, body, err := u.manifest(t.Context(), "org/app", ref)
				if err != nil || desc.Digest != image.Digest || desc.Size != image.Size || digest.FromBytes(body) != image.Digest {
					t.Fatalf("%s: got %+v, %d bytes, %v", ref, desc, len(body), err)
				}
			}
			if total := observer.requests[operationManifest]; total != 2 || len(observer.requests) != 1 {
				t.Errorf("requests: %v", observer.requests)
			}
		})
	}
}

func TestManifestOfSHA512(t *testing.T) {
	r := newTestRegistry(t)
	body := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`)
	want := digest.SHA512.FromBytes(body)
	r.setSpoil(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		w.Header().Set(headerDigest, digest.FromBytes(body).String()) // canonical for the registry, and also true
		writeWhole(w, body)
		return true
	})
	u, _ := testUpstream(t, r.upstream())
	if desc, _, err := u.manifest(t.Context(), "org/app", want.String()); err != nil || desc.Digest != want {
		t.Errorf("got %+v, %v", desc, err)
	}
}

func TestFailuresOfAnUpstreamAreTyped(t *testing.T) {
	for _, c := range failures() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newTestRegistry(t)
			r.setSpoil(c.spoil)
			u, _ := timedUpstream(t, r.upstream(), c.timings())
			subject := digest.FromString("subject")
			ctx, cancel := context.WithTimeout(t.Context(), c.timings().withDefaults().Metadata)
			defer cancel()
			// The parts that a Filler adds: parsing.
			desc, body, err := u.manifest(ctx, "org/app", "v1")
			if err == nil {
				_, err = parseManifest(desc, body)
			}
			expect(t, "tag", err, c.tag)
			ctx, cancel = context.WithTimeout(t.Context(), c.timings().withDefaults().Metadata)
			defer cancel()
			_, err = u.referrers(ctx, "org/app", subject)
			expect(t, "referrers", err, c.referrers)
		})
	}
}

func TestReferrers(t *testing.T) {
	for _, api := range []bool{true, false} {
		for _, pageSize := range []int{0, 1, 2, 7} {
			if !api && pageSize > 0 {
				continue
			}
			t.Run(fmt.Sprintf("api=%v page=%d", api, pageSize), func(t *testing.T) {
				r := newTestRegistry(t)
				r.noReferrersAPI, r.pageSize = !api, pageSize
				u, observer := testUpstream(t, r.upstream())
				subject, _ := r.pushImage("org/app", "v1", []byte("layer"))
				for want := range 6 {
					list, err := u.referrers(t.Context(), "org/app", subject.Digest)
					if err != nil || list == nil || len(list) != want {
						t.Fatalf("%d referrers: got %d, %v", want, len(list), err)
					}
					r.pushReferrer("org/app", subject, want)
				}
				if !api && observer.requests[operationReferrers] != 1 {
					t.Errorf("the lack of an API is not remembered: %v", observer.requests)
				}
			})
		}
	}
}

// A list whose later page fails in any way is an error, never its first page alone (guarantee G5).
func TestReferrersAreWholeOrAnError(t *testing.T) {
	for _, c := range failures() {
		if c.referrers == "" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newTestRegistry(t)
			r.pageSize = 1
			subject, _ := r.pushImage("org/app", "v1", []byte("layer"))
			for n := range 3 {
				r.pushReferrer("org/app", subject, n)
			}
			r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
				return (req.URL.RawQuery != "" || !strings.Contains(req.URL.Path, "/referrers/")) && c.spoil(w, req)
			})
			u, _ := timedUpstream(t, r.upstream(), c.timings())
			ctx, cancel := context.WithTimeout(t.Context(), c.timings().withDefaults().Metadata)
			defer cancel()
			if list, err := u.referrers(ctx, "org/app", subject.Digest); err == nil {
				t.Errorf("got %d of 3 referrers and no error", len(list))
			}
		})
	}
	for name, spoil := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"404": status(404), "login page": answer("text/html", "<html>"),
	} {
		t.Run("only page 3 is a "+name, func(t *testing.T) {
			r := newTestRegistry(t)
			r.pageSize = 1
			subject, _ := r.pushImage("org/app", "v1", []byte("layer"))
			for n := range 3 {
				r.pushReferrer("org/app", subject, n)
			}
			r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
				return req.URL.Query().Get("first") == "2" && spoil(w, req)
			})
			u, _ := testUpstream(t, r.upstream())
			list, err := u.referrers(t.Context(), "org/app", subject.Digest)
			if errdef.ReasonOf(err) != errdef.UpstreamInvalid {
				t.Errorf("got %d of 3 referrers, %v", len(list), err)
			}
		})
	}
	t.Run("paging without end", func(t *testing.T) {
		r := newTestRegistry(t)
		var pages int
		r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
			pages++
			w.Header().Set("Link", "<"+req.URL.Path+"?p="+strconv.Itoa(pages)+`>; rel="next"`)
			return answer(ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`)(w, req)
		})
		u, _ := testUpstream(t, r.upstream())
		_, err := u.referrers(t.Context(), "org/app", digest.FromString("subject"))
		expect(t, "referrers", err, errdef.UpstreamInvalid)
	})
}

func TestReferrersTag(t *testing.T) {
	subject := digest.FromString("subject")
	image := `{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"` + subject.String() + `","size":1},"layers":[]}`
	for _, c := range []struct {
		name, mediaType, body string
		subject               digest.Digest
		want                  errdef.Reason
	}{
		{"names the subject itself", ocispec.MediaTypeImageManifest, image, digest.FromString(image), ""},
		{"names an image", ocispec.MediaTypeImageManifest, image, subject, errdef.UpstreamInvalid},
		{"names a Docker list", mediaTypeDockerManifestList, `{"schemaVersion":2,"manifests":[]}`, subject,
			errdef.UpstreamInvalid},
		{"has no list", ocispec.MediaTypeImageIndex, `{"schemaVersion":2}`, subject, errdef.UpstreamInvalid},
		{"of sha512", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`, digest.SHA512.FromString("x"), ""},
		{"of sha512 names an image", ocispec.MediaTypeImageManifest, image, digest.SHA512.FromString("x"),
			errdef.UpstreamInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTestRegistry(t)
			r.noReferrersAPI = true
			ref := strings.Replace(c.subject.String(), ":", "-", 1)
			r.pushBytes("org/app", ref[:min(len(ref), len("sha512-")+64)], c.mediaType, []byte(c.body))
			u, _ := testUpstream(t, r.upstream())
			list, err := u.referrers(t.Context(), "org/app", c.subject)
			expect(t, "referrers", err, c.want)
			if len(list) != 0 {
				t.Errorf("got %v", list)
			}
		})
	}
}

// What is pushed after an upstream was found to have no API is seen, and an upstream that has got one is asked again.
func TestRepositoriesAreForgottenInTime(t *testing.T) {
	r := newTestRegistry(t)
	r.noReferrersAPI = true
	u, observer := testUpstream(t, r.upstream())
	now := time.Unix(1_000_000, 0)
	u.clock = func() time.Time { return now }
	for range 3 {
		if _, err := u.referrers(t.Context(), "org/app", digest.FromString("subject")); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(repositoryLife)
	if _, err := u.referrers(t.Context(), "org/app", digest.FromString("subject")); err != nil {
		t.Fatal(err)
	}
	if observer.requests[operationReferrers] != 2 || observer.requests[operationManifest] != 4 {
		t.Errorf("requests: %v", observer.requests)
	}
	for n := range 2 * maxRepositories {
		u.repository(strconv.Itoa(n))
	}
	if len(u.repositories) > maxRepositories {
		t.Errorf("%d repositories are remembered", len(u.repositories))
	}
}

func TestRetries(t *testing.T) {
	for _, c := range []struct {
		code, failed, requests int
		ok                     bool
	}{
		{503, 1, 2, true}, {502, 2, 3, true}, {504, 3, 3, false}, {429, 1, 1, false}, {500, 1, 1, false}, {404, 1, 1, false},
	} {
		t.Run(fmt.Sprintf("%d %d times", c.code, c.failed), func(t *testing.T) {
			t.Parallel()
			r := newTestRegistry(t)
			r.pushImage("org/app", "v1", []byte("layer"))
			var seen int
			r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
				seen++
				return seen <= c.failed && status(c.code)(w, req)
			})
			u, observer := testUpstream(t, r.upstream())
			_, _, err := u.manifest(t.Context(), "org/app", "v1")
			if (err == nil) != c.ok || seen != c.requests || observer.requests[operationManifest] != c.requests {
				t.Errorf("got %v after %d requests, counted %v", err, seen, observer.requests)
			}
		})
	}
}

func TestUpstreamConfiguration(t *testing.T) {
	for _, c := range []struct {
		given Upstream
		host  string // "" for an error
		plain bool
	}{
		{Upstream{Name: "ghcr.io"}, "ghcr.io", false},
		{Upstream{Name: "up.test", URL: "http://127.0.0.1:5000"}, "127.0.0.1:5000", true},
		{Upstream{Name: "up.test", URL: "https://registry.example/"}, "registry.example", false},
		{Upstream{Name: "up.test", URL: "registry.example:8443"}, "registry.example:8443", false},
		{Upstream{Name: ""}, "", false},
		{Upstream{Name: "a/b"}, "", false},
		{Upstream{Name: "UP"}, "", false},
		{Upstream{Name: "up.test", URL: "https://registry.example/prefix"}, "", false},
		{Upstream{Name: "up.test", URL: "https://user:password@registry.example"}, "", false},
		{Upstream{Name: "up.test", URL: "ftp://registry.example"}, "", false},
		{Upstream{Name: "up.test", URL: "http://"}, "", false},
	} {
		all, err := newUpstreams(c.given, FillerConfig{Observer: newTally(), Nodes: one}, noPauses{})
		u := &upstream{}
		if len(all) == 1 {
			u = all[0]
		}
		switch {
		case c.host == "" && !errors.Is(err, errdef.ErrConfigInvalid):
			t.Errorf("%+v: got %v", c.given, err)
		case c.host != "" && (err != nil || u.host != c.host || u.plainHTTP != c.plain):
			t.Errorf("%+v: got %+v, %v", c.given, u, err)
		}
		if err != nil && bytes.Contains([]byte(err.Error()), []byte("password")) {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestAnotherManifestThanTheOneAskedFor(t *testing.T) {
	r := newTestRegistry(t)
	r.pushImage("org/app", "v1", []byte("layer"))
	r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
		other := req.Clone(req.Context())
		other.URL.Path = "/v2/org/app/manifests/v1"
		r.serve(w, other)
		return true
	})
	u, _ := testUpstream(t, r.upstream())
	_, _, err := u.manifest(t.Context(), "org/app", digest.FromString("another").String())
	expect(t, "manifest", err, errdef.DigestMismatch)
}

// The check for whole lists must see it when oras-go is left to itself: it takes the first page for the whole list when
// the second is not found (v2.7.0).
func TestTheWholeListCheckBites(t *testing.T) {
	r := newTestRegistry(t)
	r.pageSize = 1
	subject, _ := r.pushImage("org/app", "v1", []byte("layer"))
	for n := range 3 {
		r.pushReferrer("org/app", subject, n)
	}
	r.setSpoil(func(w http.ResponseWriter, req *http.Request) bool {
		return req.URL.Query().Get("first") == "1" && status(404)(w, req)
	})
	u, _ := testUpstream(t, r.upstream())
	u.repository("org/app").Client = u.client.auth // the planted bug: no verifier in between
	list, err := u.referrers(t.Context(), "org/app", subject.Digest)
	if err != nil || len(list) != 1 {
		t.Errorf("oras-go has changed; is the verifier's check for missing pages still needed? %d, %v", len(list), err)
	}
}
