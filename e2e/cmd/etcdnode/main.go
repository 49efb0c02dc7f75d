// Command etcdnode is one etcd member: go.etcd.io/etcd/server/v3 embedded, with its defaults, fsync included, and room for
// a benchmark's worth of data. The benchmark of consensus starts three of them and measures Ocistern against them.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// quotaBytes lets a long run write on: every revision stays until etcd is told to compact, as in etcd's own benchmark.
const quotaBytes = 16 << 30

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcdnode:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config := embed.NewConfig()
	var client, peer string
	flag.StringVar(&config.Name, "name", "", "`name` of this member")
	flag.StringVar(&config.Dir, "data-dir", "", "`directory` of this member")
	flag.StringVar(&client, "client", "", "`host:port` for clients")
	flag.StringVar(&peer, "peer", "", "`host:port` for the other members")
	flag.StringVar(&config.InitialCluster, "cluster", "", "all members, as `NAME=http://host:port,...`")
	flag.Parse()
	config.ListenClientUrls, config.ListenPeerUrls = []url.URL{plain(client)}, []url.URL{plain(peer)}
	config.AdvertiseClientUrls, config.AdvertisePeerUrls = config.ListenClientUrls, config.ListenPeerUrls
	config.QuotaBackendBytes, config.LogLevel = quotaBytes, "warn"

	running, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer running.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-running.Err():
		return err
	}
}

func plain(address string) url.URL { return url.URL{Scheme: "http", Host: address} }
