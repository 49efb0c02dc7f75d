package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ocistern/ocistern/e2e/figure"
	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/fsm"
	"github.com/ocistern/ocistern/internal/rpc"
)

const (
	failoverTarget = 3 * time.Second
	transferTarget = 500 * time.Millisecond
	// attemptTime bounds one attempt to write while leaders change: a call to a dead node may hang.
	attemptTime = time.Second
	// attemptPause separates rounds of attempts in which no node led.
	attemptPause = 5 * time.Millisecond
	// recoverTime bounds everything that a change of leader needs.
	recoverTime = time.Minute
)

// failover kills the leader again and again, and then lets it hand over, and measures how long nothing can be written.
func (b *bench) failover(ctx context.Context) error {
	for _, way := range []struct {
		name  string
		times int
		bound time.Duration
		end   func(context.Context, *nodes.Node) error
	}{
		{"failover", b.kills, failoverTarget, func(_ context.Context, node *nodes.Node) error { return node.Kill() }},
		{"transfer", b.transfers, transferTarget, func(ctx context.Context, node *nodes.Node) error { return node.Terminate(ctx) }},
	} {
		var took []time.Duration
		for i := range way.times {
			gap, err := b.change(ctx, way.end)
			if err != nil {
				return fmt.Errorf("%s %d: %w", way.name, i+1, err)
			}
			b.progress("%s %d of %d: %s without a write", way.name, i+1, way.times, gap.Round(time.Millisecond))
			took = append(took, gap)
		}
		b.table.Print(figure.Figure{Name: way.name + "-p50", Unit: figure.Seconds, Ours: figure.Percentile(took, 50).Seconds()})
		b.table.Print(figure.Figure{
			Name: way.name + "-p99", Unit: figure.Seconds, Ours: figure.Percentile(took, 99).Seconds(), Target: figure.AtMost(way.bound.Seconds()),
		})
	}
	return nil
}

// change ends the leader while somebody writes, one write after the other, and returns the longest time without a
// success from then on until the old leader is gone and a write has succeeded without it. It then starts the node again.
func (b *bench) change(ctx context.Context, end func(context.Context, *nodes.Node) error) (gap time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	leader, err := b.ours.cluster.Leader(ctx)
	if err != nil {
		return 0, err
	}
	w := newAnyLeader(b.ours)
	defer func() { err = errors.Join(err, w.client.Close()) }()
	if err := w.write(ctx); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	last := time.Now()
	go func() { ended <- end(ctx, leader) }()
	for gone := false; ; {
		if err := w.write(ctx); err != nil {
			return 0, err
		}
		now := time.Now()
		gap, last = max(gap, now.Sub(last)), now
		if gone {
			break // this write began after the end of the leader
		}
		select {
		case err := <-ended:
			if err != nil {
				return 0, err
			}
			gone = true
		default:
		}
	}
	if err := leader.Start(); err != nil {
		return 0, err
	}
	return gap, leader.AwaitReady(ctx)
}

// anyLeader writes to whichever node leads.
type anyLeader struct {
	client *rpc.PeerClient
	peers  []string
	next   int // of peers, to ask first
}

func newAnyLeader(o *ocistern) *anyLeader {
	w := &anyLeader{client: rpc.NewPeerClient(func() string { return o.clusterID })}
	for _, node := range o.cluster.Nodes() {
		w.peers = append(w.peers, node.Peer())
	}
	return w
}

// write tries one node after the other until one has committed the write.
func (w *anyLeader) write(ctx context.Context) error {
	command, err := fsm.Encode(observeTag(0, time.Now()))
	if err != nil {
		return err
	}
	pause := time.NewTicker(attemptPause)
	defer pause.Stop()
	for {
		for range w.peers {
			attempt, cancel := context.WithTimeout(ctx, attemptTime)
			_, err = w.client.Apply(attempt, w.peers[w.next], fsm.Request{Command: command})
			cancel()
			if err == nil {
				return nil
			}
			w.next = (w.next + 1) % len(w.peers)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fmt.Errorf("no node takes a write: %w", err)
		}
	}
}
