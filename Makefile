# tcplab's chores. `make help` lists them.

.DEFAULT_GOAL := build
SHELL := /bin/sh

BUF := tools/bin/buf
LINT := tools/bin/golangci-lint
# It stands for all that tools/go.mod builds.
TALLY := tools/bin/tally
UMLRUN := bin/umlrun
DEPS := proto/.deps/buf/validate/validate.proto

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the static binary bin/tcplab
	CGO_ENABLED=0 go build -trimpath -o bin/tcplab ./cli/tcplab

.PHONY: setup
setup: packages $(TALLY) ## install what the tests need and is missing, each named first

.PHONY: packages
packages:
	@tools/setup

# Each tool is pinned by a go.mod of its own, so that none decides the version
# of what another, or tcplab itself, is built with.
$(BUF): tools/buf/go.mod tools/buf/go.sum
	@echo "builds buf, once"
	cd tools/buf && go build -o ../bin/ tool
	@touch $@

$(LINT): tools/lint/go.mod tools/lint/go.sum
	@echo "builds golangci-lint, once; that takes some minutes"
	cd tools/lint && go build -o ../bin/ tool
	@touch $@

$(TALLY): tools/go.mod tools/go.sum $(wildcard tools/cmd/*/*.go)
	@echo "setup: builds the protobuf plugins and the tools of this repository"
	cd tools && go build -o bin/ tool
	@touch $@

$(DEPS): $(TALLY)
	tools/bin/protodeps proto/.deps
	@touch $@

.PHONY: generate
generate: $(BUF) $(DEPS) ## format the protos and generate proto/gen from them
	$(BUF) format --write --path proto/tcplab
	$(BUF) generate

.PHONY: check-generate
check-generate: $(BUF) $(DEPS) ## fail when proto/gen is not current
	@tools/generated

.PHONY: breaking
breaking: $(BUF) $(DEPS) ## compare the contract with the main branch's (REF=commit for another)
	@tools/breaking $(REF)

.PHONY: lint
lint: $(BUF) $(DEPS) $(LINT) ## the contract's rules and the code's
	$(BUF) lint
	$(LINT) run --allow-parallel-runners ./...
	cd tools && ../$(LINT) run --allow-parallel-runners --config ../.golangci.yml ./...

.PHONY: umlrun
umlrun: ## the binary bin/umlrun: a command in a user-mode-linux guest
	@CGO_ENABLED=0 go build -o $(UMLRUN) ./internal/uml/umlrun

.PHONY: guest-kernel
guest-kernel: build ## the guest kernel of virtual time, once a machine
	bin/tcplab kernel build

.PHONY: test
test: setup umlrun ## all tests: on this kernel with -race, and netem's in a guest
	@tools/test

# The table goes to standard output alone: make -s bench FORMAT=markdown >file.
.PHONY: bench
bench: setup build ## figures beside other tools and targets: make bench [FORMAT=table|json|markdown] [RUN=regexp]
	@go build -o bin/bench ./tests/bench
	@bin/bench -o "$(or $(FORMAT),table)" -run "$(RUN)"

.PHONY: bench-links
bench-links: ## those of links alone: both engines, stars, a host's own interface
	@$(MAKE) --no-print-directory bench RUN='^(wire|netem|host interface)'

.PHONY: bench-flows
bench-flows: ## those of flows alone, beside iperf3, sockperf, ab and wrk: make bench-flows [RUN=regexp]
	@$(MAKE) --no-print-directory bench RUN='^flows.*($(RUN))'

.PHONY: bench-virtual
bench-virtual: ## those of virtual time alone; takes the guest kernel (bin/tcplab kernel build)
	@$(MAKE) --no-print-directory bench RUN='^virtual time'

.PHONY: bench-fleet
bench-fleet: ## a controller with simulated agents over TCP and TLS: make bench-fleet [AGENTS=100,1000,5000] [FOR=1m]
	@go build -o bin/benchfleet ./tests/benchfleet
	@bin/benchfleet -agents "$(or $(AGENTS),100,1000,5000)" -for "$(or $(FOR),1m)"

.PHONY: soak
soak: build ## a real fleet in trouble while runs go on: make soak [DURATION=10m] [SEED=1]
	@go build -o bin/soak ./tests/soak
	@bin/soak -duration "$(or $(DURATION),10m)" -seed "$(or $(SEED),0)"

.PHONY: microbench
microbench: setup ## the packages' own benchmarks, medians of 5
	go test -run '^$$' -bench . -count 5 ./... | tee bench.out
	tools/bin/benchstat bench.out

.PHONY: accept
accept: build umlrun ## the checks of one area of work: make accept AREA=foundation [RUN=regexp]
	go run ./tests/accept -area "$(AREA)" -run "$(RUN)"

.PHONY: clean
clean: ## remove what was built
	rm -rf bin tools/bin proto/.deps bench.out
