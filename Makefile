# `make run` and `make test` work from a fresh clone on Debian 12 and 13, as root or as a user with sudo. What they install is
# kept: .venv/ in the repository, the reference network in a cache folder; the second time is quick.

SHELL := /bin/bash
PYTHON ?= $(firstword $(wildcard .venv/bin/python) $(shell command -v python3.11 python3.13) python3)
VENV := .venv
BIN := $(VENV)/bin
# The versions that were tested, also of what packages are built with, for which there is no option that old pips know.
INSTALL := PIP_CONSTRAINT=conf/constraints.txt $(BIN)/python -m pip install --quiet
ROUNDS ?= 1000
SECONDS ?= 600
HOURS ?= 3

.DEFAULT_GOAL := help
.PHONY: help run check format test lint check-types test-setup debian upgrade-deps FORCE
.PHONY: bench bench-hosts bench-network bench-storm bench-peers soak fuzz kill-test cluster-test
# Prerequisites are made in their order: what Debian brings comes before what is built with it.
.NOTPARALLEL:

help:
	@echo 'make run                  start the relay on 127.0.0.1:2470'
	@echo 'make check                lint, types and unit tests: under a minute, no root, no network but for the first time'
	@echo 'make format               put the code into the form that `make check` asks for'
	@echo 'make test                 lint, types and all tests; installs what they need'
	@echo 'make upgrade-deps         renew conf/constraints.txt, the versions that all of these install'
	@echo 'make bench                benchmarks of single functions and rooms'
	@echo 'make bench-hosts          3,000 TLS hosts for 15 minutes, memory, latency; ARGS="--help"'
	@echo 'make bench-network        the whole relay under a fake network; ARGS="--help" for its options'
	@echo 'make bench-storm          thousands of new accounts at once beside known ones, and a slow PLC directory'
	@echo 'make bench-peers          this relay, indigo and rsky (RSKY_DIR) under the same load in turn; needs Go; more than an hour'
	@echo 'make soak HOURS=3         a relay that is never at rest: what grows, and whether an event is lost; HOURS=0.33 for 20 minutes'
	@echo 'make fuzz SECONDS=600     fuzz the parsers of bytes from outside'
	@echo 'make kill-test ROUNDS=1000   SIGKILL under load and at every durable step; what was lost or repeated'
	@echo 'make cluster-test ROUNDS=100   what can happen to a cluster of three, in random order; what was lost, how long the gaps'
	@echo 'PYTHON=python3.13 picks the Python: 3.11 and 3.13 are tested; .venv/ is made anew for another one.'

run: $(VENV)/.relay
	$(BIN)/relay serve $(ARGS)

check: lint check-types
	$(BIN)/python -m tests.side_by_side tests/unit tests/promises/test_06_bounds.py tests/promises/test_19_what_is_loaded.py

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: test-setup lint check-types
	$(BIN)/python -m tests.side_by_side --per-core 2 --postgres --durations=10 --ignore=tests/bench

lint: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: $(VENV)/.check
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/pytest tests/bench --benchmark-columns=min,median,ops --timeout=1800 -s

bench-hosts: $(VENV)/.check
	$(BIN)/python -m tests.bench.hosts $(ARGS)

bench-network: $(VENV)/.check
	$(BIN)/python -m tests.bench.network $(ARGS)

bench-storm: $(VENV)/.check
	$(BIN)/python -m tests.bench.storm $(ARGS)

bench-peers: $(VENV)/.check
	$(BIN)/python -m tests.bench.peers $(ARGS)

soak: $(VENV)/.check
	$(BIN)/python -m tests.bench.soak --hours $(HOURS) $(ARGS)

fuzz: $(VENV)/.test
	$(BIN)/pytest tests/fuzz --timeout=0 -s --fuzz-seconds=$(SECONDS)

kill-test: $(VENV)/.test
	CRASH_POINTS=all CRASH_ROUNDS=500 KILL_ROUNDS=$(ROUNDS) $(BIN)/pytest tests/promises tests/process -k 'kill or crash_points' --timeout=0 -s

cluster-test: $(VENV)/.test
	CLUSTER_ROUNDS=$(ROUNDS) $(BIN)/pytest tests/process/test_cluster.py -k rounds --timeout=0 -s

test-setup: debian $(VENV)/.test
	@tests/e2e/install.sh

# All that tests need of Debian, asked of apt only where it is not there.
debian:
	@.ci/need '$(PYTHON) -c "import ensurepip, venv"' python3-venv \
	  -- 'test -f "$$($(PYTHON) -c "import sysconfig; print(sysconfig.get_path(\"include\"))")/Python.h"' python3-dev \
	  -- 'command -v g++ && command -v make' g++ make \
	  -- 'compgen -G "/usr/lib/postgresql/*/bin/initdb"' postgresql \
	  -- 'command -v npm' npm \
	  -- 'command -v systemd-analyze' systemd \
	  -- 'command -v sqlite3' sqlite3 \
	  -- 'command -v chromium && command -v chromedriver' chromium chromium-driver fonts-dejavu-core
	@.ci/unpack .cache/debian promtool promtool prometheus
	@.ci/unpack .cache/debian nginx nginx
	@.ci/unpack .cache/debian caddy caddy
	@.ci/unpack .cache/debian nats-server nats-server
	@.ci/unpack .cache/debian pgbouncer pgbouncer
	@.ci/unpack .cache/debian libjemalloc.so.2 libjemalloc2

# Both Pythons at once, each package with its newest version that setup.cfg allows.
upgrade-deps: $(VENV)/.python
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate \
	  --custom-compile-command 'make upgrade-deps' --extra test --output-file conf/constraints.txt setup.cfg

# The Python that .venv/ was made with; it is made anew when PYTHON= asks for another one.
$(VENV)/.python: FORCE
	@if [ ! -x $(BIN)/python ] || { [ '$(origin PYTHON)' != file ] && [ "$$($(BIN)/python -VV)" != "$$($(PYTHON) -VV)" ]; }; then \
	  set -e; .ci/need '$(PYTHON) -c "import ensurepip, venv"' python3-venv; \
	  $(PYTHON) -m venv --clear $(VENV); \
	fi
	@[ -e $@ ] || touch $@

$(VENV)/.relay: $(VENV)/.python setup.cfg pyproject.toml conf/constraints.txt
	$(INSTALL) --editable .
	@touch $@

# All that `make check` needs: nothing that has to be compiled.
$(VENV)/.check: $(VENV)/.relay
	$(INSTALL) --editable '.[check]'
	@touch $@

$(VENV)/.test: $(VENV)/.relay
	$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/.check
