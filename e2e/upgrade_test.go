package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ocistern/ocistern/client"
	"github.com/ocistern/ocistern/e2e/nodes"
)

// version is `version old|new [NODE...]`: nodes, or else the cluster to come, will start with the build of feature level 1
// or with the present one.
func (s *scene) version(_ *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: version old|new [NODE...]")
	}
	binary := s.binary
	switch args[0] {
	case "old":
		var err error
		if binary, err = s.old(); err != nil {
			return err
		}
	case "new":
	default:
		return fmt.Errorf("there is no version %q", args[0])
	}
	if len(args) == 1 {
		s.initial = binary
		return nil
	}
	return s.each(args[1:], func(node *nodes.Node) error {
		node.Binary = binary
		return nil
	})
}

// firstLevel builds the other version into a directory, once for all scripts.
func firstLevel(dir string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), buildTime)
		defer cancel()
		return nodes.BuildFirstLevel(ctx, "..", dir)
	})
}

// buildTime bounds the build of another version: on a busy machine, of everything.
const buildTime = 5 * time.Minute

// pin is `pin LEVEL NODE...`: cluster.feature-level of nodes when they start next.
func (s *scene) pin(_ *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: pin LEVEL NODE...")
	}
	level, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return s.each(args[1:], func(node *nodes.Node) error {
		node.FeatureLevel = level
		return s.cluster.Configure(node)
	})
}

// level is `level N NODE...`: the nodes are at that feature level.
func (s *scene) level(_ *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: level N NODE...")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.each(args[1:], func(node *nodes.Node) error {
		status, err := node.Status(ctx, false)
		if err == nil && strconv.Itoa(int(status.GetFeatureLevel())) != args[0] {
			err = fmt.Errorf("%s is at feature level %d, want %s", node.Name, status.GetFeatureLevel(), args[0])
		}
		return err
	})
}

// load is reads and writes that go on while other things happen.
type load struct {
	stop    context.CancelFunc
	running sync.WaitGroup
	rounds  atomic.Int64
	failed  atomic.Bool
	err     error // what should not have been; once running has ended
}

// loadCommand is `load start REPOSITORY:TAG` and `load stop COUNT`. Each round resolves the tag, and one that is missing in
// the registry, which makes the cluster write down its absence. None may fail, and at least COUNT must have been made.
func (s *scene) loadCommand(_ *testscript.TestScript, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "start" && s.load == nil:
		session, err := client.New(s.cluster.Endpoints())
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		begun := &load{stop: cancel}
		begun.running.Go(func() {
			defer session.Close()
			begun.run(ctx, session, args[1])
		})
		s.load = begun
		return nil
	case len(args) == 2 && args[0] == "stop" && s.load != nil:
		least, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		done := s.load
		s.load = nil
		return done.check(least)
	default:
		return errors.New("usage: load start REPOSITORY:TAG | load stop COUNT")
	}
}

// check lets the load come to a number of rounds, or fail, for as long as a script has patience; then it ends it.
func (l *load) check(least int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	late := nodes.Await(ctx, func(context.Context) error {
		if rounds := int(l.rounds.Load()); rounds < least && !l.failed.Load() {
			return fmt.Errorf("%d rounds were made, want %d", rounds, least)
		}
		return nil
	})
	return errors.Join(l.end(), late)
}

// end stops the load, in the middle of a round, and returns what went wrong.
func (l *load) end() error {
	l.stop()
	l.running.Wait()
	if l.err != nil {
		return fmt.Errorf("in round %d: %w", l.rounds.Load(), l.err)
	}
	return nil
}

func (l *load) run(ctx context.Context, session *client.Client, reference string) {
	repository, tag, err := session.Open(reference)
	for err == nil {
		if err = round(ctx, repository, tag, fmt.Sprintf("missing-%d", l.rounds.Load())); err == nil {
			l.rounds.Add(1)
		}
	}
	if ctx.Err() == nil { // else it was told to end
		l.err = err
		l.failed.Store(true)
	}
}

func round(ctx context.Context, repository *client.Repository, tag, missing string) error {
	if _, err := repository.Resolve(ctx, tag); err != nil {
		return err
	}
	_, err := repository.Resolve(ctx, missing)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return nil
	case err == nil:
		return fmt.Errorf("%s was found", missing)
	}
	return err
}
