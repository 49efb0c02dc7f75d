package main

import (
	"bytes"
	"os"
	"regexp"
	"testing"

	"github.com/ocistern/ocistern/e2e/command"
	"github.com/ocistern/ocistern/e2e/nodes"
)

// TestMain makes the test binary a registry or a proxy where main would.
func TestMain(m *testing.M) {
	if os.Getenv(registryVariable)+os.Getenv(proxyVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

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
	const single, verdict = `<=(1\.15|2\.00)x`, `(reached|short)`
	for _, want := range []string{
		`^verification .* <=0\.60x ` + verdict, `^verification-without-prefetch .* - -`,
		`^manifest .* <=1\.15x ` + verdict, `^manifest-by-tag .* <=1\.15x ` + verdict, `^layer .* <=1\.15x ` + verdict,
		`^verification-known .* - -`, `^manifest-via-proxy .* - -`, `^loopback-layer-via-proxy .* - -`,
		`^answer-while-revalidating .* <=1\.15x ` + verdict,
		`^loopback-verification .* <=2\.00x ` + verdict, `^loopback-manifest .* ` + single + ` ` + verdict,
		`^loopback-layer .* <=2\.00x ` + verdict, `^\d+ of 10 reached\n\z`,
	} {
		if !regexp.MustCompile("(?m)" + want).MatchString(out.String()) {
			t.Errorf("no line matches %s in\n%s", want, out.String())
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"-ocistern", "/nowhere"}, {"-unknown"}, {"-match", "("}} {
		var out, progress bytes.Buffer
		if code := benchmark().Run(t.Context(), args, &out, &progress); code != command.Usage || progress.Len() == 0 || out.Len() > 0 {
			t.Errorf("%v: exit status %d, printed %q and %q", args, code, out.String(), progress.String())
		}
	}
}
