# `make test` installs what it needs and runs everything; `make help` tells the rest.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.cache/cargo/bin:$(PATH)

.PHONY: help install test e2e-keycloak demo-browser clients bench fmt lint doc deny

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## what the tests need: Debian packages, Keycloak, Python and npm packages at locked versions
	@scripts/install

test: install ## everything: unit, property, contract, real Keycloak and Redis, clients, the demo in a browser
	@scripts/test

e2e-keycloak: install ## the whole job on a real Keycloak and a real Redis
	@scripts/test e2e_keycloak

demo-browser: install ## the demo's story in a real Chromium; screenshots in artefacts/
	@scripts/test demo_browser

clients: install ## openid-client and Authlib, which know nothing of Reentry
	@scripts/test clients

bench: ## what each hot path costs, beside bare programs on the same machine: target/bench/report.json
	@scripts/install --for-bench
	@cargo build --release --locked -p reentry -p reentry-load
	@target/release/reentry-load

fmt: ## formats the code
	@cargo fmt --all

lint: ## formatting and clippy, warnings denied
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings

doc: ## documentation, warnings denied
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

deny: ## licences, banned crates and sources of all dependencies
	@scripts/install --with-lints
	@cargo deny check bans licenses sources
