package e2e

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ocistern/ocistern/e2e/upstream"
)

// upstreamUsage lists the forms of the command `upstream`.
const upstreamUsage = `usage:
  upstream start NAME distribution|go-containerregistry   run a registry; $upstream is its host:port
  upstream stop | resume                                  refuse connections; serve again, same port and content
  upstream push-signed REPOSITORY:TAG SIGNATURES          push an image that is signed by notation
  upstream fault KIND HARM [TIMES]                        harm reads: KIND manifest|blob|referrers|tags|all,
                                                          HARM wrong-bytes|truncated|stalled or an HTTP status
  upstream heal                                           end all faults
  upstream reset                                          forget what was asked so far
  upstream asked N                                        it was asked exactly N times since the last reset
  upstream asked-once                                     it was asked for no object twice since the last reset`

// upstreamCommand is `upstream`, see upstreamUsage.
func (s *scene) upstreamCommand(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errors.New(upstreamUsage)
	}
	verb, args := args[0], args[1:]
	if verb == "start" && len(args) == 2 {
		return s.startRegistry(ts, args[0], upstream.Software(args[1]))
	}
	if s.registry == nil {
		return errors.New("no registry was started")
	}
	switch {
	case verb == "push-signed" && len(args) == 2:
		signatures, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return s.pushSigned(args[0], signatures)
	case verb == "fault" && len(args) >= 2:
		return s.inject(args)
	case verb == "asked" && len(args) == 1:
		return s.asked(args[0])
	case len(args) > 0:
		return errors.New(upstreamUsage)
	}
	switch verb {
	case "stop":
		return s.registry.Stop()
	case "resume":
		return s.registry.Resume()
	case "heal":
		s.registry.Heal()
	case "reset":
		s.registry.Ledger.Reset()
	case "asked-once":
		return s.registry.Ledger.Repeated()
	default:
		return errors.New(upstreamUsage)
	}
	return nil
}

func (s *scene) startRegistry(ts *testscript.TestScript, name string, software upstream.Software) error {
	registry, err := upstream.Start(upstream.Options{Software: software})
	if err != nil {
		return err
	}
	s.name, s.registry = name, registry
	ts.Setenv("upstream", registry.Host())
	return nil
}

func (s *scene) inject(args []string) error {
	fault := upstream.Fault{Kind: upstream.Kind(args[0]), Harm: upstream.Harm(args[1])}
	if args[0] == "all" {
		fault.Kind = ""
	}
	if len(args) > 2 {
		times, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		fault.Times = times
	}
	s.registry.Inject(fault)
	return nil
}

func (s *scene) asked(text string) error {
	want, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	if got := s.registry.Ledger.Count(); got != want {
		return fmt.Errorf("the registry was asked %d times, want %d", got, want)
	}
	return nil
}
