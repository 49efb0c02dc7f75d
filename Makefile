# Ocistern. `make help` lists the targets; everything they need is pinned by go.mod files (tools: internal/tools/go.mod).
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 20000x
UPSTREAM ?=
RUNS     ?= 50
ARGS     ?=
TOOLS    := bin/tools

.PHONY: help build test test-unit sim e2e lint generate check-generated fuzz bench bench-consensus bench-cold bench-fleet demo dev image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/ocistern (static)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ocistern ./cmd/ocistern

test: test-unit ## all tests: units with the race detector, simulated clusters, then end to end
	$(MAKE) --no-print-directory sim RUNS=50 SIMTIME=4m
	$(MAKE) --no-print-directory e2e

test-unit: ## the root module's tests, with the race detector
	go test -race -timeout 20m ./...

sim: ## simulated clusters, an hour each: SEED=first RUNS=at-least SIMTIME=4m FAULT=only BUG=planted
	GOGC=400 go test -timeout 0 -v ./internal/simulation -args $(if $(SEED),-sim.seed=$(SEED)) -sim.runs=$(RUNS) -sim.hours=1 \
		$(if $(SIMTIME),-sim.time=$(SIMTIME)) $(if $(BUG),-sim.bug='$(BUG)') $(if $(FAULT),-sim.fault='$(FAULT)')

e2e: ## real processes and real registries (e2e is a module of its own)
	cd e2e && go test -timeout 10m $$(go list ./... | grep -v /deploy$$)
	cd e2e && go test -timeout 10m -v ./deploy # -v, to say what was skipped and why

lint: $(TOOLS)/golangci-lint check-generated ## golangci-lint, and generated code is up to date
	$(TOOLS)/golangci-lint run ./...
	cd e2e && ../$(TOOLS)/golangci-lint run --config ../.golangci.yml ./...

generate: $(TOOLS)/buf ## generate Go code from the protos
	cd internal/proto && ../../$(TOOLS)/buf lint && ../../$(TOOLS)/buf generate

check-generated: generate
	@git diff --exit-code -- internal/proto || { echo 'generated code is not up to date: commit what "make generate" wrote' >&2; exit 1; }

# Each fuzz target runs alone: go test -fuzz takes one target of one package at a time. A number of inputs rather than a
# time is the default, since go test may report the end of its time as a failure (golang/go issue 75804).
fuzz: ## fuzz every decoder: FUZZTIME inputs (20000x) or seconds (10s) each
	@grep -rnoE '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' --exclude-dir=e2e . | while IFS=: read -r file _ name; do \
		go test -run '^$$' -fuzz "^$${name#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; done

bench: ## the benchmarks that argue the choice of data structures (million records; takes minutes)
	go test -run '^$$' -bench . -benchmem -timeout 30m ./fsm/... ./blobstore/...

bench-consensus: build ## against etcd: commits, linearizable reads, snapshots, failover (takes 20 minutes; ARGS=-help lists flags)
	cd e2e && CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o ../bin/ ./cmd/etcdnode ./cmd/benchconsensus
	bin/benchconsensus -ocistern bin/ocistern -etcdnode bin/etcdnode $(ARGS)

bench-cold: build ## what a cache costs or saves that knows nothing yet (takes minutes; ARGS=-help lists flags)
	cd e2e && CGO_ENABLED=0 go build -trimpath -o ../bin/ ./cmd/benchcold
	bin/benchcold -ocistern bin/ocistern $(ARGS)

bench-fleet: build ## 10,000 pods before a registry that throttles, with and without Ocistern (takes ten minutes; ARGS=-help lists flags)
	cd e2e && CGO_ENABLED=0 go build -trimpath -o ../bin/ ./cmd/benchfleet
	bin/benchfleet -ocistern bin/ocistern $(ARGS)

demo: build ## a fleet verifies a signed image through three nodes, while things break
	cd e2e && go run ./cmd/demo -ocistern ../bin/ocistern

dev: build ## three nodes that stay up; UPSTREAM=NAME=URL adds an upstream
	bin/ocistern dev $(if $(UPSTREAM),--upstream $(UPSTREAM))

image: build ## a container image from the prebuilt binary (pulls nothing)
	mkdir -p dist/data && cp bin/ocistern /etc/ssl/certs/ca-certificates.crt dist/
	docker build --target prebuilt --tag ocistern:$(VERSION) --tag ocistern:dev .

clean: ## remove what was built
	rm -rf bin dist

$(TOOLS)/%: internal/tools/go.mod internal/tools/go.sum
	cd internal/tools && go build -o ../../$(TOOLS)/ $$(go list tool | grep '/$*$$')
