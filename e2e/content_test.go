package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/e2e/signed"
)

// pull is `pull NODE REFERENCE DIR`: oras.Copy of an artifact through one node into files.
func (s *scene) pull(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: pull NODE REFERENCE DIR")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.each(args[:1], func(node *nodes.Node) (err error) {
		session, err := client.New([]string{node.GRPC()})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, session.Close()) }()
		source, tag, err := session.Open(args[1])
		if err != nil {
			return err
		}
		files, err := file.New(ts.MkAbs(args[2]))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, files.Close()) }()
		_, err = oras.Copy(ctx, source, tag, files, tag, oras.DefaultCopyOptions)
		return err
	})
}

// verify is `verify NODE REPOSITORY:TAG COUNT`: COUNT concurrent verifiers verify the image that `upstream push-signed`
// pushed through one node, or through all nodes, COUNT each.
func (s *scene) verify(_ *testscript.TestScript, args []string) error {
	if len(args) != 3 || s.policy == nil {
		return errors.New("usage, after `upstream push-signed`: verify NODE REPOSITORY:TAG COUNT")
	}
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var verifiers errgroup.Group
	err = s.each(args[:1], func(node *nodes.Node) error {
		for range count {
			verifiers.Go(func() error { return verifyThrough(ctx, s.policy, node, args[1]) })
		}
		return nil
	})
	return errors.Join(err, verifiers.Wait())
}

func verifyThrough(ctx context.Context, policy *signed.Verifier, node *nodes.Node, reference string) (err error) {
	session, err := client.New([]string{node.GRPC()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	repository, _, err := session.Open(reference)
	if err != nil {
		return err
	}
	if _, err := policy.Verify(ctx, repository, reference); err != nil {
		return fmt.Errorf("through %s: %w", node.Name, err)
	}
	return nil
}

// pushSigned pushes an image with that many signatures to the registry, and makes the policy for it.
func (s *scene) pushSigned(name string, signatures int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path, tag, _ := strings.Cut(name, ":")
	target, err := remote.NewRepository(s.registry.Host() + "/" + path)
	if err != nil {
		return err
	}
	target.PlainHTTP = true
	image := signed.Image{Tag: tag, Layers: []int{1 << 20, 10_000}}
	for i := range signatures {
		signer, err := signed.NewSigner(fmt.Sprintf("signer %d", i+1))
		if err != nil {
			return err
		}
		image.Signers = append(image.Signers, signer)
	}
	if _, err := signed.Push(ctx, target, image); err != nil {
		return err
	}
	s.policy, err = signed.NewVerifier(image.Signers...)
	return err
}

// damage is `damage NODE FILE`: changes one byte of the blob whose content is that of FILE in the node's store.
func (s *scene) damage(ts *testscript.TestScript, args []string) error {
	return s.blob(ts, args, func(path string, _ digest.Digest) error {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		content[len(content)/2] ^= 0xff
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := os.Chmod(path, 0o600); err != nil { // what the store made read-only, a failing disk changes all the same
			return err
		}
		return errors.Join(os.WriteFile(path, content, 0o600), os.Chmod(path, info.Mode()))
	})
}

// intact is `intact NODE FILE`: the node's store holds the content of FILE, undamaged.
func (s *scene) intact(ts *testscript.TestScript, args []string) error {
	return s.blob(ts, args, func(path string, want digest.Digest) error {
		opened, err := os.Open(path)
		if err != nil {
			return err
		}
		defer opened.Close()
		verifier := want.Verifier()
		if _, err := io.Copy(verifier, opened); err != nil {
			return err
		}
		if !verifier.Verified() {
			return fmt.Errorf("%s is damaged", path)
		}
		return nil
	})
}

// absent is `absent NODE FILE`: the node's store does not hold the content of FILE, intact or damaged.
func (s *scene) absent(ts *testscript.TestScript, args []string) error {
	err := s.blob(ts, args, func(path string, _ digest.Digest) error { return fmt.Errorf("there is %s", path) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// blob calls act on the file in the store of a node that should hold the content of another file.
func (s *scene) blob(ts *testscript.TestScript, args []string, act func(path string, want digest.Digest) error) error {
	if len(args) != 2 {
		return errors.New("usage: damage|intact|absent NODE FILE")
	}
	content, err := os.ReadFile(ts.MkAbs(args[1]))
	if err != nil {
		return err
	}
	want := digest.FromBytes(content)
	return s.each(args[:1], func(node *nodes.Node) error {
		suffix := filepath.Join("blobs", want.Algorithm().String(), want.Encoded())
		path, err := findFile(node.DataDir(), suffix)
		if err != nil {
			return fmt.Errorf("%s: %w", node.Name, err)
		}
		return act(path, want)
	})
}

// findFile returns the file under dir whose path ends with suffix.
func findFile(dir, suffix string) (string, error) {
	found := ""
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file that is gone already
		}
		if err == nil && strings.HasSuffix(path, string(filepath.Separator)+suffix) {
			found = path
			return fs.SkipAll
		}
		return err
	})
	if err == nil && found == "" {
		err = &fs.PathError{Op: "find", Path: filepath.Join(dir, "...", suffix), Err: fs.ErrNotExist}
	}
	return found, err
}
