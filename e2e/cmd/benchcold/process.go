package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
)

// process is this binary again, as a server. It ends with this process, and is not safe for concurrent use.
type process struct {
	host    string
	command *exec.Cmd
	ask     io.WriteCloser
	answers *bufio.Scanner
}

// startSelf starts a server with one more variable in its environment, and waits until it says its host.
func startSelf(variable string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{command: exec.Command(self)}
	p.command.Env = append(os.Environ(), variable)
	p.command.Stderr = os.Stderr
	if p.ask, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	p.answers = bufio.NewScanner(answers)
	if p.host, err = p.answer(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *process) url() string { return "http://" + p.host }

// answer reads one line.
func (p *process) answer() (string, error) {
	if !p.answers.Scan() {
		return "", errors.Join(errors.New("a server's process has ended"), p.answers.Err())
	}
	return p.answers.Text(), nil
}

func (p *process) close() error { return errors.Join(p.ask.Close(), p.command.Wait()) }

// proxyVariable makes this binary a proxy of the registry at a URL.
const proxyVariable = "BENCHCOLD_PROXY"

// startProxy starts a process that hands everything on, keeps nothing, verifies nothing and agrees with nobody: what any process
// between a verifier and a registry costs at least, on this machine.
func startProxy(of registry) (*process, error) { return startSelf(proxyVariable + "=" + of.url()) }

// proxyBuffer is as large as those of the nodes.
const proxyBuffer = 256 << 10

// serveProxy is the proxy's process, until in ends: it prints its host.
func serveProxy(of string, in io.Reader, out io.Writer) error {
	target, err := url.Parse(of)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, BufferPool: buffers(make(chan []byte, 16)),
	}
	server, served := &http.Server{Handler: proxy}, make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if _, err := fmt.Fprintln(out, listener.Addr()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	err = errors.Join(err, server.Close())
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// buffers implements httputil.BufferPool.
type buffers chan []byte

// Get implements httputil.BufferPool.
func (b buffers) Get() []byte {
	select {
	case buffer := <-b:
		return buffer
	default:
		return make([]byte, proxyBuffer)
	}
}

// Put implements httputil.BufferPool.
func (b buffers) Put(buffer []byte) {
	select {
	case b <- buffer:
	default:
	}
}
