# `make run` and `make test` work from a fresh clone on Debian 12, as root or as a user with sudo. What they install is kept:
# .venv/ in the repository, the reference network in a cache folder; the second time is quick.

SHELL := /bin/bash
PYTHON ?= $(firstword $(shell command -v python3.11) python3)
VENV := .venv
BIN := $(VENV)/bin
ROUNDS ?= 1000
SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help run test lint check-types test-setup bench bench-hosts bench-network bench-storm bench-peers fuzz kill-test

help:
	@echo 'make run                  start the relay on 127.0.0.1:2470'
	@echo 'make test                 lint, types and all tests; installs what they need'
	@echo 'make bench                benchmarks of single functions and rooms'
	@echo 'make bench-hosts          a soak: 3,000 TLS hosts for 15 minutes, memory, latency; ARGS="--help"'
	@echo 'make bench-network        the whole relay under a fake network; ARGS="--help" for its options'
	@echo 'make bench-storm          thousands of new accounts at once beside known ones, and a slow PLC directory'
	@echo 'make bench-peers          this relay and indigo under the same load in turn; needs Go; ten minutes'
	@echo 'make fuzz SECONDS=600     fuzz the parsers of bytes from outside'
	@echo 'make kill-test ROUNDS=1000   SIGKILL under load, and count what was lost or repeated'

run: $(VENV)/.relay
	$(BIN)/relay serve $(ARGS)

test: test-setup lint check-types
	$(BIN)/pytest --durations=10 --ignore=tests/bench

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: $(VENV)/.test
	$(BIN)/mypy relay

bench: $(VENV)/.test
	$(BIN)/pytest tests/bench --benchmark-columns=min,median,ops --timeout=1800 -s

bench-hosts: $(VENV)/.test
	$(BIN)/python -m tests.bench.hosts $(ARGS)

bench-network: $(VENV)/.test
	$(BIN)/python -m tests.bench.network $(ARGS)

bench-storm: $(VENV)/.test
	$(BIN)/python -m tests.bench.storm $(ARGS)

bench-peers: $(VENV)/.test
	$(BIN)/python -m tests.bench.peers $(ARGS)

fuzz: $(VENV)/.test
	$(BIN)/pytest tests/fuzz --timeout=0 -s --fuzz-seconds=$(SECONDS)

kill-test: $(VENV)/.test
	KILL_ROUNDS=$(ROUNDS) $(BIN)/pytest tests/integration -k kill --timeout=0 -s

# Ask apt only for what is not there: a machine may have these from elsewhere.
test-setup: $(VENV)/.test
	@.ci/need 'compgen -G "/usr/lib/postgresql/*/bin/initdb"' postgresql
	@.ci/need 'command -v npm' npm
	@.ci/need 'command -v g++ && command -v make' g++ make
	@.ci/need 'command -v systemd-analyze' systemd
	@.ci/need 'command -v sqlite3' sqlite3
	@.ci/unpack $(VENV)/debian promtool prometheus
	@.ci/unpack $(VENV)/debian nginx nginx
	@.ci/unpack $(VENV)/debian caddy caddy
	@.ci/need 'command -v chromium && command -v chromedriver' chromium chromium-driver fonts-dejavu-core
	@tests/e2e/install.sh

$(VENV)/bin/python:
	@.ci/need '$(PYTHON) -c "import ensurepip, venv"' python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.relay: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.relay
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@
