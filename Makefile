# presenced. "make" alone prints the targets.

GO     ?= go
TOOL    = $(GO) tool -modfile=.ci/tools.mod
VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: help build test lint bench bench-sip demo peers docs

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/presenced
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/presenced ./cmd/presenced

demo: build ## a small office lives through a day, in the terminal and on a page
	@bin/presenced demo $(ARGS)

test: build ## run every test, and replay every scenario
	@$(GO) test ./... $(ARGS)
	@bin/presenced replay --quiet fixtures/scenarios/*.txtar
	@fixtures/peers/install --missing

peers: ## install the real servers that some tests run against (Debian, needs root)
	@fixtures/peers/install

lint: ## check the code (golangci-lint, pinned in .ci/tools.mod)
	@$(TOOL) golangci-lint run ./...

bench: build ## measure, print a table, write bench.json
	@$(GO) run ./cmd/bench

bench-sip: ## the same for SIP, beside a real Kamailio (make peers)
	@$(GO) run ./cmd/bench sip

docs: build ## write docs/configuration.md and docs/policy.default.yaml from the code
	@bin/presenced config reference > docs/configuration.md
	@bin/presenced policy show > docs/policy.default.yaml
