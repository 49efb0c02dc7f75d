package config

import (
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ocistern/ocistern/internal/reference"
)

// Upstream is a registry that may be mirrored: repositories named Name/... are read from URL.
type Upstream struct {
	Name, URL string // URL is scheme and host, without a slash at the end

	CAFile                   string // certificates trusted beside the system's, in PEM; empty for none
	CertificateFile, KeyFile string // what this node shows as client, in PEM; both or none
	// AllowAddresses are loopback, link-local and private addresses that may be dialled for this upstream nevertheless.
	AllowAddresses []netip.Prefix

	Concurrency       int     // requests in flight, of the whole cluster
	RequestsPerSecond float64 // of the whole cluster; 0 for no limit
	Burst             int     // requests that may follow each other at once; 0 without a limit
}

// Bounds and defaults of what an upstream is asked.
const (
	DefaultConcurrency = 32
	maxConcurrency     = 10_000
	maxRate            = 1_000_000
)

func upstreams() *structure {
	s := structureOf("upstreams", "upstream", []column[Upstream]{
		{name: "name", must: true, doc: "first segment of the names of its repositories",
			set: into(upstreamName, func(u *Upstream) *string { return &u.Name })},
		{name: "url", doc: "scheme and host (default https://NAME)",
			set: into(upstreamURL, func(u *Upstream) *string { return &u.URL })},
		{name: "ca-file", doc: "certificates in PEM that are trusted beside the system's",
			set: into(path, func(u *Upstream) *string { return &u.CAFile })},
		{name: "certificate-file", doc: "client certificate in PEM; needs key-file",
			set: into(path, func(u *Upstream) *string { return &u.CertificateFile })},
		{name: "key-file", doc: "its key", set: into(path, func(u *Upstream) *string { return &u.KeyFile })},
		{name: "allow-addresses", list: true, doc: "loopback, link-local and private addresses that it may redirect to, as " +
			"prefixes", set: into(prefixes, func(u *Upstream) *[]netip.Prefix { return &u.AllowAddresses })},
		{name: "concurrency", doc: "requests in flight, of the whole cluster (default 32)",
			set: into(wholeNumber(1, maxConcurrency), func(u *Upstream) *int { return &u.Concurrency })},
		{name: "requests-per-second", doc: "of the whole cluster; 0 for no limit (default 0)",
			set: into(rate, func(u *Upstream) *float64 { return &u.RequestsPerSecond })},
		{name: "burst", doc: "requests that may follow each other at once (default those of one second)",
			set: into(wholeNumber(1, maxRate), func(u *Upstream) *int { return &u.Burst })},
	}, addUpstream)
	s.short = [2]string{"name", "url"}
	return s
}

// addUpstream fills in what was left out.
func addUpstream(c *Config, item Item, u Upstream) error {
	if slices.ContainsFunc(c.Upstreams, func(other Upstream) bool { return other.Name == u.Name }) {
		return item.wrong("upstreams has %s twice", u.Name).WithRemedy("give each upstream another name")
	}
	if u.URL == "" {
		u.URL = "https://" + u.Name
	}
	if (u.CertificateFile == "") != (u.KeyFile == "") {
		return item.wrong("upstream %s has only one of certificate-file and key-file", u.Name).WithRemedy("give both")
	}
	if strings.HasPrefix(u.URL, "http://") && (u.CAFile != "" || u.KeyFile != "") {
		return item.wrong("upstream %s has certificates and a URL without TLS", u.Name).WithRemedy("https://, or no certificates")
	}
	if u.Burst > 0 && u.RequestsPerSecond == 0 {
		return item.wrong("upstream %s has a burst and no limit", u.Name).WithRemedy("give requests-per-second too")
	}
	if u.Burst == 0 {
		u.Burst = int(math.Ceil(u.RequestsPerSecond))
	}
	if u.Concurrency == 0 {
		u.Concurrency = DefaultConcurrency
	}
	c.Upstreams = append(c.Upstreams, u)
	return nil
}

func upstreamName(v Value) (string, error) {
	name := v.Texts[0]
	if _, err := reference.ParseRepository(name); err != nil || strings.Contains(name, "/") {
		return "", v.wrong("is not a name").
			WithRemedy("the first segment of repository names: lower-case letters, digits and . - _, for example ghcr.io")
	}
	return name, nil
}

// upstreamURL repeats no URL in its errors: people put passwords there.
func upstreamURL(v Value) (string, error) {
	if problem := urlProblem(v.Texts[0]); problem != "" {
		return "", v.wrong("%s", problem).WithRemedy("scheme and host of the registry, for example https://ghcr.io")
	}
	return strings.TrimSuffix(v.Texts[0], "/"), nil
}

// urlProblem says what is wrong with the URL of a registry, empty for nothing.
func urlProblem(text string) string {
	parsed, err := url.Parse(text)
	switch {
	case err != nil:
		return "cannot be parsed"
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return "begins with neither http:// nor https://"
	case parsed.User != nil:
		return "contains credentials, which belong in a file"
	case !validAddress(parsed.Host, false) && !validHost(strings.Trim(parsed.Host, "[]")):
		return "has no valid host"
	case strings.Trim(parsed.Path, "/") != "" || parsed.RawQuery != "" || parsed.Fragment != "":
		return "goes on after the host"
	}
	return ""
}

// prefixes reads ranges of addresses; an address without length is itself.
func prefixes(v Value) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range v.Texts {
		prefix, err := netip.ParsePrefix(text)
		if address, single := netip.ParseAddr(text); single == nil {
			prefix, err = address.Prefix(address.BitLen())
		}
		if err != nil {
			return nil, v.invalid("has %q, which is no range of addresses", shown(text)).
				WithRemedy("for example 10.1.0.0/16, fd00::/8 or 10.1.2.3")
		}
		all = append(all, prefix.Masked())
	}
	return all, nil
}

func rate(v Value) (float64, error) {
	n, err := strconv.ParseFloat(v.Texts[0], 64)
	if err != nil || !(n >= 0 && n <= maxRate) {
		return 0, v.invalid("is not a number of requests").WithRemedy("0 to %d, for example 16.5, or 0 for no limit", maxRate)
	}
	return n, nil
}
