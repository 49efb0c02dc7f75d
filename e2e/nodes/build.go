package nodes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
)

// Build builds the ocistern binary of this source tree into dir and returns its path. root is the directory of the root
// module. When the calling program was built with the race detector, so is the binary.
func Build(ctx context.Context, root, dir string) (string, error) {
	if builtWithRaceDetector() {
		return build(ctx, root, dir, "CGO_ENABLED=1", "-race")
	}
	return BuildStatic(ctx, root, dir)
}

// BuildStatic builds the binary as it is shipped: static, without the race detector.
func BuildStatic(ctx context.Context, root, dir string) (string, error) {
	return build(ctx, root, dir, "CGO_ENABLED=0", "-trimpath") // the flags of `make build`, which shares its cache
}

// BuildFirstLevel builds a binary of feature level 1: what ran before there were levels, as far as the log and the
// snapshots are concerned.
func BuildFirstLevel(ctx context.Context, root, dir string) (string, error) {
	return build(ctx, root, dir, "CGO_ENABLED=0", "-trimpath", "-tags", "ocistern_level1")
}

func build(ctx context.Context, root, dir, environment string, flags ...string) (string, error) {
	binary := filepath.Join(dir, "ocistern")
	args := append([]string{"build", "-o", binary}, flags...)
	build := exec.CommandContext(ctx, "go", append(args, "./cmd/ocistern")...)
	build.Dir, build.Env = root, append(os.Environ(), environment)
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("ocistern does not build: %w\n%s", err, output)
	}
	return binary, nil
}

func builtWithRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, setting := range info.Settings {
		if setting.Key == "-race" {
			return setting.Value == "true"
		}
	}
	return false
}
