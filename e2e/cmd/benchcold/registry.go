package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ocistern/ocistern/e2e/upstream"
)

// registry is a registry in a process of its own, as the nodes are: one in this process would answer the direct way sooner than
// any other.
type registry struct{ *process }

// registryVariable makes this binary a registry that is so far away: a latency and bytes a second.
const registryVariable = "BENCHCOLD_REGISTRY"

func startRegistry(l link) (registry, error) {
	p, err := startSelf(fmt.Sprintf("%s=%s %d", registryVariable, l.latency, l.bytesPerSecond))
	return registry{p}, err
}

// requests returns how many there have been.
func (r registry) requests() (int, error) {
	if _, err := fmt.Fprintln(r.ask); err != nil {
		return 0, err
	}
	count, err := r.answer()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(count)
}

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
