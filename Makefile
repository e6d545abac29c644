# tcplab's chores. `make help` lists them.

.DEFAULT_GOAL := build
SHELL := /bin/sh

BUF := tools/bin/buf
LINT := tools/bin/golangci-lint
PROTO_TOOLS := tools/bin/.proto
DEPS := proto/.deps/buf/validate/validate.proto

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the static binary bin/tcplab
	CGO_ENABLED=0 go build -trimpath -o bin/tcplab ./cli/tcplab

# Each tool is pinned by a go.mod of its own, so that none decides the version
# of what another, or tcplab itself, is built with.
$(BUF): tools/buf/go.mod tools/buf/go.sum
	cd tools/buf && go build -o ../bin/ tool
	@touch $@

$(LINT): tools/lint/go.mod tools/lint/go.sum
	cd tools/lint && go build -o ../bin/ tool
	@touch $@

$(PROTO_TOOLS): tools/go.mod tools/go.sum tools/cmd/protodeps/main.go
	cd tools && go build -o bin/ tool
	@touch $@

$(DEPS): $(PROTO_TOOLS)
	tools/bin/protodeps proto/.deps
	@touch $@

.PHONY: generate
generate: $(BUF) $(DEPS) ## format the protos and generate proto/gen from them
	$(BUF) format --write --path proto/tcplab
	$(BUF) generate

.PHONY: check-generate
check-generate: $(BUF) $(DEPS) ## fail when proto/gen is not current
	tools/generated

.PHONY: lint-proto
lint-proto: $(BUF) $(DEPS) ## buf's rules for the contract
	$(BUF) lint

.PHONY: breaking
breaking: $(BUF) $(DEPS) ## compare the contract with the main branch's (REF=commit for another)
	tools/breaking $(REF)
