package fill

import (
	"sync"

	"github.com/ocistern/ocistern/fsm/catalog"
)

// maxProofs bounds what is remembered while there is no quorum.
const maxProofs = 4096

// proofs remembers content that an upstream gave to a repository and that could not be published.
type proofs struct {
	// mu guards commands.
	mu       sync.Mutex
	commands map[ContentKey]catalog.Publish
}

func newProofs() *proofs { return &proofs{commands: map[ContentKey]catalog.Publish{}} }

func (p *proofs) get(key ContentKey) (catalog.Publish, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	command, ok := p.commands[key]
	return command, ok
}

// put remembers a proof unless there are too many: to forget one costs an upstream request.
func (p *proofs) put(key ContentKey, command catalog.Publish) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.commands) < maxProofs {
		p.commands[key] = command
	}
}

func (p *proofs) remove(key ContentKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.commands, key)
}
