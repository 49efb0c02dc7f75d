package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ocistern/ocistern/e2e/nodes"
	"github.com/ocistern/ocistern/e2e/ports"
)

// etcd is three etcdnode processes.
type etcd struct {
	members []*exec.Cmd
	clients []string // addresses of the members for clients
	block   *ports.Block
}

// startEtcd starts three members and waits for a leader. Close what it returns, when it fails too.
func startEtcd(ctx context.Context, binary, dir string) (*etcd, error) {
	e := &etcd{}
	var err error
	if e.block, err = ports.Reserve(); err != nil {
		return e, err
	}
	var peers, all []string
	for i := range nodeCount {
		client, err := e.block.Next()
		if err != nil {
			return e, err
		}
		peer, err := e.block.Next()
		if err != nil {
			return e, err
		}
		e.clients, peers = append(e.clients, ports.Address(client)), append(peers, ports.Address(peer))
		all = append(all, fmt.Sprintf("e%d=http://%s", i+1, peers[i]))
	}
	for i := range nodeCount {
		if err := e.start(binary, filepath.Join(dir, fmt.Sprintf("e%d", i+1)), i, peers[i], strings.Join(all, ",")); err != nil {
			return e, err
		}
	}
	return e, nodes.Await(ctx, func(ctx context.Context) error {
		_, _, err := e.roles(ctx)
		return err
	})
}

func (e *etcd) start(binary, dir string, i int, peer, all string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	member := exec.Command(binary, "-name", fmt.Sprintf("e%d", i+1), "-data-dir", filepath.Join(dir, "data"),
		"-client", e.clients[i], "-peer", peer, "-cluster", all)
	member.Stdout, member.Stderr = log, log
	member.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := member.Start(); err != nil {
		return fmt.Errorf("start %s: %w", binary, err)
	}
	e.members = append(e.members, member)
	return nil
}

// roles returns the client addresses of the leader and of one follower.
func (e *etcd) roles(ctx context.Context) (leader, follower string, err error) {
	for _, address := range e.clients {
		client, err := dialEtcd(address)
		if err != nil {
			return "", "", err
		}
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		status, err := client.Status(bounded, address)
		cancel()
		if err := errors.Join(err, client.Close()); err != nil {
			return "", "", fmt.Errorf("status of etcd at %s: %w", address, err)
		}
		switch status.Leader {
		case 0:
			return "", "", fmt.Errorf("etcd at %s knows no leader", address)
		case status.Header.MemberId:
			leader = address
		default:
			follower = address
		}
	}
	if leader == "" || follower == "" {
		return "", "", errors.New("the etcd members name no leader among them")
	}
	return leader, follower, nil
}

func (e *etcd) close() error {
	var failures []error
	for _, member := range e.members {
		failures = append(failures, member.Process.Kill())
		_ = member.Wait() // it was killed
	}
	if e.block != nil {
		failures = append(failures, e.block.Release())
	}
	return errors.Join(failures...)
}

func dialEtcd(address string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 5 * time.Second})
}

// processes implements system.
func (e *etcd) processes() []int {
	var ids []int
	for _, member := range e.members {
		ids = append(ids, member.Process.Pid)
	}
	return ids
}

// connect implements system.
func (e *etcd) connect(ctx context.Context, connections int, onFollower bool) (connection, error) {
	leader, follower, err := e.roles(ctx)
	if err != nil {
		return nil, err
	}
	address := leader
	if onFollower {
		address = follower
	}
	c := &etcdConnection{}
	for range connections {
		client, err := dialEtcd(address)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.clients = append(c.clients, client)
	}
	return c, nil
}

type etcdConnection struct{ clients []*clientv3.Client }

func (c *etcdConnection) write(ctx context.Context, client, key int) error {
	_, err := c.clients[client%len(c.clients)].Put(ctx, tagName(key), payload)
	return err
}

func (c *etcdConnection) read(ctx context.Context, client, key int) error {
	answer, err := c.clients[client%len(c.clients)].Get(ctx, tagName(key)) // linearizable unless told otherwise
	if err == nil && (len(answer.Kvs) != 1 || len(answer.Kvs[0].Value) != len(payload)) {
		err = fmt.Errorf("etcd holds no value of key %s", tagName(key))
	}
	return err
}

func (c *etcdConnection) close() error {
	var failures []error
	for _, client := range c.clients {
		failures = append(failures, client.Close())
	}
	return errors.Join(failures...)
}
