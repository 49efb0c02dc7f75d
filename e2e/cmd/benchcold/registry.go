package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/ocistern/ocistern/e2e/upstream"
)

// registry is a registry in a process of its own, as the nodes are: one in this process would answer the direct way sooner than
// any other. It is this binary again. It ends with this process, and is not safe for concurrent use.
type registry struct {
	host    string
	process *exec.Cmd
	ask     io.WriteCloser
	answers *bufio.Scanner
}

// registryVariable makes this binary a registry that is so far away: a latency and bytes a second.
const registryVariable = "BENCHCOLD_REGISTRY"

func startRegistry(l link) (*registry, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &registry{process: exec.Command(self)}
	r.process.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", registryVariable, l.latency, l.bytesPerSecond))
	r.process.Stderr = os.Stderr
	if r.ask, err = r.process.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := r.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.process.Start(); err != nil {
		return nil, err
	}
	r.answers = bufio.NewScanner(answers)
	if r.host, err = r.answer(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *registry) url() string { return "http://" + r.host }

// requests returns how many there have been.
func (r *registry) requests() (int, error) {
	if _, err := fmt.Fprintln(r.ask); err != nil {
		return 0, err
	}
	count, err := r.answer()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(count)
}

func (r *registry) answer() (string, error) {
	if !r.answers.Scan() {
		return "", errors.Join(errors.New("the registry's process has ended"), r.answers.Err())
	}
	return r.answers.Text(), nil
}

func (r *registry) close() error { return errors.Join(r.ask.Close(), r.process.Wait()) }

// serveRegistry is the registry's process, until in ends: it prints its host, and then for each line how many requests there
// were.
func serveRegistry(settings string, in io.Reader, out io.Writer) (err error) {
	latency, rate, _ := strings.Cut(settings, " ")
	options := upstream.Options{Software: upstream.ContainerRegistry}
	if options.Latency, err = time.ParseDuration(latency); err != nil {
		return err
	}
	if options.BytesPerSecond, err = strconv.ParseInt(rate, 10, 64); err != nil {
		return err
	}
	served, err := upstream.Start(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, served.Close()) }()
	questions := bufio.NewScanner(in)
	for _, err = fmt.Fprintln(out, served.Host()); err == nil && questions.Scan(); {
		_, err = fmt.Fprintln(out, served.Ledger.Count())
	}
	return errors.Join(err, questions.Err())
}
