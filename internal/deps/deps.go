// Package deps is temporary scaffolding: it holds requirements in go.mod until the packages that use them exist.
package deps

import (
	_ "github.com/hashicorp/go-hclog"
	_ "github.com/hashicorp/go-immutable-radix/v2"
	_ "github.com/hashicorp/go-memdb"
	_ "github.com/hashicorp/memberlist"
	_ "github.com/hashicorp/raft"
	_ "github.com/hashicorp/raft-boltdb/v2"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/spf13/cobra"
	_ "github.com/tidwall/btree"
	_ "go.yaml.in/yaml/v3"
	_ "golang.org/x/sync/errgroup"
	_ "google.golang.org/grpc/health"
	_ "google.golang.org/grpc/reflection"
	_ "oras.land/oras-go/v2/registry/remote"
)
