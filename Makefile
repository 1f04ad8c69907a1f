# Entry points of the project. Each brings what it needs itself and is quick when all is there already.
# On a fresh Debian 12, as root, git, make and Python are enough.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# Extra arguments for pytest: make test ARGS='-k scheduler -x'
ARGS ?=

BIN := .venv/bin
VENV := .venv/.installed
GENERATED := .cache/generated
PROTOS := $(shell find proto -name '*.proto')
PYTEST := $(BIN)/python -m pytest

# Seeds of the simulator: SEEDS=5000, SEEDS=100..200, or SEED=7 to replay one with all its events.
SEEDS ?= 500
SEED ?=

.PHONY: help venv system etcd demo test test-long test-vm sim sim-mutants check format bench clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

venv: $(VENV) $(GENERATED) ## make the Python environment .venv (the CLI is then .venv/bin/argosy)

$(VENV): pyproject.toml proto/build.py deploy/install/venv.sh
	@deploy/install/venv.sh $(PYTHON)
	@touch $@

$(GENERATED): $(PROTOS) proto/build.py $(VENV)
	@$(BIN)/python proto/build.py
	@mkdir -p $(@D) && touch $@

system:
	@deploy/install/system-packages.sh run

etcd: system
	@deploy/install/etcd.sh >/dev/null

demo: venv system etcd ## three hosts, a Compose file, scaling, an update and a lost host, in under a minute
	@deploy/demo/demo.sh

test: venv system etcd ## all tests but the long ones
	@deploy/install/system-packages.sh test vm
	@tests/vm/kernel.sh >/dev/null
	$(PYTEST) -n 2 -m 'not long and not alone' $(ARGS)
	$(PYTEST) -m 'alone and not long' $(ARGS) || [ $$? = 5 ] # 5: ARGS leaves none of these

test-long: venv system etcd ## the tests that take long, sim-mutants, and all of test-vm
	@deploy/install/system-packages.sh test vm
	$(PYTEST) -m long $(ARGS)
	ARGOSY_SEARCH=1 $(PYTEST) tests/property
	@$(MAKE) --no-print-directory sim-mutants
	@$(MAKE) --no-print-directory test-vm

test-vm: venv system ## the kernel tests on Debian's 6.1 kernel with cgroup v2, in an emulated machine
	@deploy/install/system-packages.sh vm
	$(BIN)/python -m tests.vm $(ARGS)

sim: venv ## the simulator: SEEDS=5000 or SEEDS=100..200; SEED=7 replays one and prints its events
	$(BIN)/python -m tests.sim $(if $(SEED),$(SEED) --log,$(if $(findstring ..,$(SEEDS)),$(SEEDS),1..$(SEEDS)))

sim-mutants: venv ## break the code in named ways; the simulator must see each
	$(BIN)/python -m tests.sim.mutants

check: venv ## formatting, lint, types, import rules, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/build.py --check

format: venv ## format the code and apply the safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv system etcd ## the benchmark programs, each with the machine's load beside its figures
	@for program in bench/[a-z]*.py; do $(BIN)/python "$$program" $(ARGS); done

clean: ## remove .venv, .cache, and what was generated or built
	rm -rf .venv .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find proto -name '*_pb2*.py*' -delete
	find agent bench cli controller core proto tests -name __pycache__ -type d -prune -exec rm -rf {} +
