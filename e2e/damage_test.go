package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ocistern/ocistern/e2e/nodes"
)

// damageLog is `damage-log NODE...`: one byte of a dead node's Raft log changes, on the first page, so that it is not one of
// those which nothing uses.
func (s *scene) damageLog(_ *testscript.TestScript, args []string) error {
	const inMeta = 24
	return s.each(args, func(node *nodes.Node) error {
		if node.Running() {
			return fmt.Errorf("%s runs", node.Name)
		}
		path := filepath.Join(node.DataDir(), "raft", "raft.db")
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		content[inMeta] ^= 0xff
		return os.WriteFile(path, content, 0o600)
	})
}

// votersNoted is `voters-noted NODE...`: the nodes know of other voters, by which a damaged log can be set aside.
func (s *scene) votersNoted(_ *testscript.TestScript, args []string) error {
	return s.each(args, func(node *nodes.Node) error {
		found, err := readIdentity(node.DataDir())
		if err == nil && len(found.Voters) < 2 {
			err = fmt.Errorf("%s knows of the voters %v", node.Name, found.Voters)
		}
		return err
	})
}

// rejoined is `rejoined NODE...`: what was damaged lies in quarantine, once, with the id of then, and the node has another one.
func (s *scene) rejoined(_ *testscript.TestScript, args []string) error {
	return s.each(args, func(node *nodes.Node) error {
		set, err := filepath.Glob(filepath.Join(node.DataDir(), "quarantine", "*-log", "raft", "raft.db"))
		if err == nil && len(set) != 1 {
			err = fmt.Errorf("in the quarantine of %s are %v", node.Name, set)
		}
		if err != nil {
			return err
		}
		was, err := readIdentity(filepath.Dir(filepath.Dir(set[0])))
		is, failed := readIdentity(node.DataDir())
		if err := errors.Join(err, failed); err != nil {
			return err
		}
		if was.ID == "" || is.ID == "" || was.ID == is.ID {
			return fmt.Errorf("%s was node %q and is node %q", node.Name, was.ID, is.ID)
		}
		return nil
	})
}

// identity is what the scripts look at in node.json.
type identity struct {
	ID     string
	Voters []string
}

func readIdentity(dir string) (found identity, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	return found, err
}
