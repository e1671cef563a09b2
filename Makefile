# Every target installs what it needs first; the second time that takes no time. `make` alone tells what there is.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

SYSTEM_PYTHON ?= /usr/bin/python3
VENV   := .venv
PYTHON := $(VENV)/bin/python
PIP    := $(PYTHON) -m pip --disable-pip-version-check --no-input
APT_LISTS := packages/apt-dev.txt $(wildcard integration/lab/apt.txt)
BENCHES   := failover migrate evacuate core sim drill
# Which cases of long tests `make check` runs (others each day), and from which seed on `make test` draws worlds.
SAMPLE     ?= $(shell expr $$(date +%s) / 86400)
# New worlds with each commit, the same ones whenever that commit is tested.
FRESH      ?= $(shell printf '%d' 0x$$(git rev-parse --short=7 HEAD 2>/dev/null || echo 1))
SOAK_SEEDS ?= 5000
SOAK_FROM  ?= $(shell date +%s)
SOAK_WALKS ?= 2000

say = @printf '\n== %s\n' "$(1)"
as_root = @if [ "$$(id -u)" != 0 ]; then echo "The lab needs root (network namespaces, libvirtd). Run: sudo make $@" >&2; exit 1; fi

.PHONY: help install apt check lint types contracts quick unit test integration soak demo bench clean lock

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z][a-z%-]*:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: apt $(VENV)/.requirements.stamp $(VENV)/.editable.stamp ## Install Debian packages, and dr with its locked dependencies in .venv

check: lint types contracts quick ## Lint, types, import contracts, and unit tests with a sample of the long ones: under a minute, no root

test: lint types contracts unit integration ## All of check, each long test as a whole, 100 random worlds of the commit's own, then the lab (as root)

soak: install ## Every interruption of every scenario, long walks through the core, 5,000 random worlds: an hour
	$(call say,Every interruption of every scenario)
	@$(PYTHON) -m tests.sim.soak
	$(call say,Walks through the core)
	@$(PYTHON) -m tests.core.walk --seeds $(SOAK_WALKS)
	$(call say,Random worlds)
	@$(VENV)/bin/dr sim fuzz --seeds $(SOAK_SEEDS) --from $(SOAK_FROM) --jobs $$(nproc)
	$(call say,Mutants$(comma) hunted afresh)
	@$(PYTHON) -m tests.sim.test_mutants

demo: install ## Lab up, a host's power cut, the timeline of the failover (as root)
	$(call say,Demo: a failover in the lab)
	$(as_root)
	@$(PYTHON) -m integration.demo

bench: $(BENCHES:%=bench-%) ## All benchmarks (as root)

bench-failover: ## How fast a failover is: five runs, last line JSON (as root)

bench-migrate: ## A live migration beside bare virsh: five pairs in three minutes, last line JSON (as root)

bench-evacuate: ## Eight guests leave a host over slow links, by dr and by virsh: four minutes, last line JSON (as root)

bench-core: install ## How fast and how good the core decides at 1,000 hosts and 20,000 guests, last line JSON
	$(call say,Benchmark: core)
	@$(PYTHON) -m integration.bench.core

bench-sim: install ## How fast the simulator is: a quiet world, random worlds; last line JSON
	$(call say,Benchmark: sim)
	@$(PYTHON) -m integration.bench.sim

bench-drill: install ## Drills: all single hosts of 1,000 with 20,000 guests on paper, boots of three clones; last line JSON (as root)
	$(call say,Benchmark: drill)
	$(as_root)
	@$(PYTHON) -m integration.bench.drill

bench-%: install
	$(call say,Benchmark: $*)
	$(as_root)
	@$(PYTHON) -m integration.bench.$*

lock: ## Pin all dependencies with hashes (make lock UPGRADE=--upgrade for newer ones)
	$(call say,Locking the dependencies of pyproject.toml)
	@$(SYSTEM_PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip -qq --disable-pip-version-check install uv
	@index="$${PIP_INDEX_URL:-$$(build/lock/bin/python -m pip config get global.index-url 2>/dev/null || true)}"; \
	compile() { build/lock/bin/uv pip compile --no-config --quiet --generate-hashes --no-header --python-version 3.11 \
	    $${index:+--default-index "$$index"} $(UPGRADE) "$$@" >/dev/null; }; \
	compile pyproject.toml --extra dev --output-file requirements.lock; \
	compile --group build --constraints requirements.lock --output-file requirements-build.lock
	@git --no-pager diff --stat -- '*.lock' || true

clean: ## Tear down the labs, remove .venv, caches and builds
	$(call say,Cleaning)
	@if [ -x $(PYTHON) ] && [ -e integration/lab/__main__.py ]; then $(PYTHON) -m integration.lab down; fi
	@rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find dr integration tests -name __pycache__ -prune -exec rm -rf {} +

# --- parts of the above ---

apt:
	@packages/apt-install $(APT_LISTS)

# Two locks: what builds (hatchling, setuptools) must be there first, as nothing is built with unlocked tools.
$(VENV)/.requirements.stamp: requirements-build.lock requirements.lock | apt
	$(call say,Installing the locked Python packages in $(VENV) (the first time: half a minute))
	@$(SYSTEM_PYTHON) -m venv $(VENV)
	@$(PIP) -qq install --require-hashes -r requirements-build.lock
	@$(PIP) -qq install --require-hashes --no-build-isolation -r requirements.lock
	@touch $@

$(VENV)/.editable.stamp: pyproject.toml $(VENV)/.requirements.stamp
	@$(PIP) -qq install --no-deps --no-build-isolation --editable .
	@touch $@

lint: install
	$(call say,Lint and format (ruff))
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check

types: install
	$(call say,Types (mypy strict))
	@$(PYTHON) -m mypy

contracts: install
	$(call say,Imports point one way (import-linter))
	@$(VENV)/bin/lint-imports --no-logo

# Long tests (random worlds, interruptions, mutants, blows in the middle of a move) say themselves how much of them this is.
quick: install
	$(call say,Unit$(comma) property and scenario tests$(comma) a sample of the long ones (pytest))
	@$(PYTHON) -m pytest tests -x -q -n2 --sample=$(SAMPLE)

unit: install
	$(call say,Unit$(comma) property and scenario tests (pytest))
	@$(PYTHON) -m pytest tests -x -q -n2 --fresh=$(FRESH)

integration: install | unit
	$(call say,Tests in two labs side by side (pytest$(comma) as root))
	$(as_root)
	@$(PYTHON) -m pytest integration -q -n2

comma := ,
