# Every command a person types. CI runs the same targets (.ci/run).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
DESTDIR ?=
BINDIR := $(DESTDIR)$(PREFIX)/bin
CARGO ?= cargo
RELEASE := target/release/pawld
FUZZ_SECONDS ?= 60
BENCH ?= all
SIM_SECONDS ?= 60
CLIENTS ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the release binary (target/release/pawld)
	$(CARGO) build --release --locked

.PHONY: test
test: format-check lint ## Format check, lints, then every test, with one summary at the end
	scripts/test

.PHONY: check
check: format-check lint docs ## Format check, lints and the documentation, warnings denied

.PHONY: run
run: build ## Run one member on 127.0.0.1:2379, data in .cluster/single
	$(RELEASE) --name single --data-dir .cluster/single \
	  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
	  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
	  --initial-cluster single=http://127.0.0.1:2380

.PHONY: cluster
cluster: build ## Build and run three members on loopback; ctrl-C ends them cleanly
	scripts/cluster

.PHONY: bench
bench: build ## Measure Pawl beside etcd, Redis, LMDB and redb, those that are found (BENCH, default all)
	$(CARGO) run --release --locked --manifest-path bench/Cargo.toml -- $(BENCH)

.PHONY: clients
clients: build ## Run other people's etcd clients, with their own tests, against a real etcd and Pawl (CLIENTS, default all)
	contrib/clients/run $(CLIENTS)

.PHONY: fuzz
fuzz: ## Fuzz every decoder and both file formats for FUZZ_SECONDS each (default 60), on stable Rust
	fuzz/run $(FUZZ_SECONDS)

.PHONY: planted
planted: export RUSTFLAGS := --cfg planted
planted: export CARGO_TARGET_DIR := target/planted
planted: ## Switch on each planted bug and see who finds it (BUG="name ..." for some); writes sim/planted.md
	$(CARGO) test --locked --lib --test tests --no-run
	$(CARGO) build --profile sim --locked --features sim
	PAWL_SIM=$(CURDIR)/target/planted/sim/pawld $(CARGO) test --locked --test tests every_planted_bug -- --nocapture

.PHONY: sim
sim: ## Simulate fresh seeds for SIM_SECONDS of CPU time (default 60); failing plans go to sim/found
	$(CARGO) build --profile sim --locked --features sim
	target/sim/pawld sim --seeds 1000000 --cpu $(SIM_SECONDS) --out sim/found

.PHONY: sim-check
sim-check: ## Plans that failed once, seeds, small worlds, some planted bugs: the simulator's part of CI
	scripts/sim-check

.PHONY: soak
soak: ## Simulate for SIM_SECONDS of CPU time and add a row to sim/LEDGER.md
	scripts/soak $(SIM_SECONDS)

.PHONY: install
install: build ## Install pawld and the names pawlctl and pawlutl under PREFIX/bin (default /usr/local)
	install -d $(BINDIR)
	install -m 0755 $(RELEASE) $(BINDIR)/pawld
	ln -sf pawld $(BINDIR)/pawlctl
	ln -sf pawld $(BINDIR)/pawlutl

.PHONY: install-etcd-names
install-etcd-names: install ## The same, and the names etcd, etcdctl and etcdutl, for scripts that call those
	@for name in etcd etcdctl etcdutl; do \
	  if [ -e "$(BINDIR)/$$name" ] && [ "$$(readlink "$(BINDIR)/$$name")" != pawld ]; then \
	    echo "$(BINDIR)/$$name is not ours: remove it first" >&2; exit 1; \
	  fi; \
	  ln -sf pawld "$(BINDIR)/$$name"; \
	done

.PHONY: format
format: ## Format all the code
	$(CARGO) fmt

.PHONY: format-check
format-check:
	$(CARGO) fmt --check

.PHONY: lint
lint:
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings

.PHONY: docs
docs:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --all-features --no-deps --document-private-items

.PHONY: clean
clean: ## Remove what was built and the data of the local cluster
	$(CARGO) clean
	rm -rf .cluster
