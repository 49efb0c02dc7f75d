// Package upstream runs real registries on loopback inside the process of a test or of the demo: CNCF distribution v3,
// which has no referrers API, and go-containerregistry's, which has it. Around each lies a handler that counts what is
// read, can add the time of a network, and can do harm to responses on request.
//
// It is not a fake: pushes and reads go through the registries' own code. The e2e scripts, tests and the demo use it.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ocistern/ocistern/e2e/ports"
)

// Software names the registry to run.
type Software string

// The registries at hand.
const (
	// Distribution is CNCF distribution v3, with its in-memory driver. It has no referrers API.
	Distribution Software = "distribution"
	// ContainerRegistry is go-containerregistry's pkg/registry, with the referrers API.
	ContainerRegistry Software = "go-containerregistry"
)

// listenPatience bounds how long Start waits for its own former port.
const listenPatience = 5 * time.Second

// Registry is a running registry. All methods are safe for concurrent use.
type Registry struct {
	// Ledger counts the reads.
	Ledger Ledger

	options Options
	block   *ports.Block
	port    int
	storage storage
	faults  faults
	limiter *limiter
	link    *rate.Limiter

	mu     sync.Mutex // guards server and ended
	server *http.Server
	ended  chan error // receives why the server ended
}

// Options says which registry to run.
type Options struct {
	Software Software
	// Latency is how long each read takes, as if the registry were that far away.
	Latency time.Duration
	// BytesPerSecond bounds the bodies of all reads together; 0 for no bound.
	BytesPerSecond int64
	// Everywhere makes the registry listen on all interfaces, for callers in containers, instead of on loopback.
	Everywhere bool
}

// Start runs a registry with an empty storage on a free port.
func Start(options Options) (*Registry, error) {
	content, err := open(options.Software)
	if err != nil {
		return nil, err
	}
	block, err := ports.Reserve()
	if err != nil {
		return nil, errors.Join(err, content.close())
	}
	r := &Registry{
		options: options, block: block, storage: content, limiter: &limiter{}, link: newLink(options.BytesPerSecond),
	}
	if r.port, err = block.Next(); err == nil {
		err = r.Resume()
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Resume makes a stopped registry serve again, with its content and on its port. It does nothing on a running one.
func (r *Registry) Resume() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), listenPatience)
	defer cancel()
	address := r.Host()
	if r.options.Everywhere {
		address = fmt.Sprintf(":%d", r.port)
	}
	listener, err := listen(ctx, address)
	if err != nil {
		return fmt.Errorf("registry cannot listen: %w", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: time.Minute, ErrorLog: silent()}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	r.server, r.ended = server, ended
	return nil
}

// Stop breaks all connections off and refuses new ones. The content is kept for Resume. It tells when the registry had
// ended before by itself.
func (r *Registry) Stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		return nil
	}
	server := r.server
	r.server = nil
	err := server.Close()
	if cause := <-r.ended; !errors.Is(cause, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("registry on %s ended early: %w", r.Host(), cause))
	}
	return err
}

// Close stops the registry, and frees its content and its port.
func (r *Registry) Close() error { return errors.Join(r.Stop(), r.block.Release(), r.storage.close()) }

// Port returns the port that the registry listens on, also while it is stopped.
func (r *Registry) Port() int { return r.port }

// Host returns host:port on loopback.
func (r *Registry) Host() string { return ports.Address(r.port) }

// URL returns the registry's root, without a final slash.
func (r *Registry) URL() string { return "http://" + r.Host() }

// Software returns which registry this is.
func (r *Registry) Software() Software { return r.options.Software }

// Limit bounds the reads from now on.
func (r *Registry) Limit(limit Limit) { r.limiter.set(limit) }

// Inject puts a fault in force, beside those that already are.
func (r *Registry) Inject(fault Fault) { r.faults.add(fault) }

// Heal ends all faults.
func (r *Registry) Heal() { r.faults.clear() }

func (r *Registry) serve(w http.ResponseWriter, request *http.Request) {
	object := objectOf(request)
	if !isRead(request, object) {
		r.storage.handler.ServeHTTP(w, request)
		return
	}
	if !wait(request.Context(), r.options.Latency) {
		return
	}
	if retryAfter, refused := r.limiter.refuse(time.Now()); refused {
		r.Ledger.add(Request{Object: object, Method: request.Method, Status: http.StatusTooManyRequests})
		tooMany(w, retryAfter)
		return
	}
	count := func(header http.Header, status int) {
		if told := header.Get("Docker-Content-Digest"); told != "" {
			object.Reference = told
		}
		r.Ledger.add(Request{Object: object, Method: request.Method, Status: status})
	}
	if harm := r.faults.take(object, request); harm != "" {
		recorded := newRecorder()
		r.storage.handler.ServeHTTP(recorded, request)
		count(recorded.Header(), 0)
		harm.answer(w, request, recorded)
		return
	}
	passed := &passing{
		ResponseWriter: w, ctx: request.Context(), link: r.link, count: func(status int) { count(w.Header(), status) },
	}
	r.storage.handler.ServeHTTP(passed, request)
	if !passed.counted { // it wrote nothing
		passed.WriteHeader(http.StatusOK)
	}
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, latency time.Duration) bool {
	if latency == 0 {
		return true
	}
	select {
	case <-time.After(latency):
		return true
	case <-ctx.Done():
		return false
	}
}

// listen tries until it gets the address or ctx ends: connections of a former server may still hold it.
func listen(ctx context.Context, address string) (net.Listener, error) {
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return listener, nil
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}
