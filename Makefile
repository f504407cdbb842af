# Small verbs for daily work, the same on a desk and in CI. Each target works alone on a machine
# that has Python 3.11, make, git and the package indexes: the first one builds .venv.

# The distribution's Python before others on the PATH: it is what companies run, often an early patch
# release, and optimized, which what version managers compile is not by default (ADR 0033).
PYTHON ?= $(shell command -v /usr/bin/python3.11 || command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.synced

# More than there are cores: some wait for a gateway while others compute.
WORKERS = $$($(BIN)/python -c 'import os; print(min(4, 2 * (os.cpu_count() or 1)))')

# The tests start some hundred Pythons: what one has compiled is there for the next.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-wheel fault lint bench agentdojo conformance wheel

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(UV): requirements-bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv --without-pip $(VENV)
	@# A distribution's Python may come without pip: whichever there is serves, told where to install.
	@for python in $(PYTHON) python3.11 python3; do \
		$$python -m pip --version >/dev/null 2>&1 && pip="$$python -m pip" && break; done; \
	[ "$$pip" ] || { $(BIN)/python -m ensurepip >/dev/null 2>&1 && pip="$(BIN)/python -m pip"; } || \
		{ echo "no Python here has pip: install python3-pip, or name one that has: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	$$pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.txt
	@touch $@

$(STAMP): $(UV) uv.lock pyproject.toml
	$(UV) sync --frozen --quiet
	@touch $@

demo: $(STAMP) ## the whole path on real input; KEEP=1 leaves it up to play with
	@$(BIN)/python -m examples.acme.demo $(if $(KEEP),--keep)

test: $(STAMP) ## every test but the fault suite; COVERAGE=1 counts branches; ARGS= goes to pytest
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore=tests/fault $(if $(COVERAGE),--cov --cov-report=term) $(ARGS)

fault: $(STAMP) ## kills, power loss, failing system calls, tampering: for hours; QUICK=1 for CI's share
	@$(if $(QUICK),,COUNTERSIGN_FAULT_FACTOR=$${COUNTERSIGN_FAULT_FACTOR:-1}) $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist load tests/fault $(ARGS)

test-wheel: $(STAMP) ## the unit tests against the built wheel in a fresh environment
	@tests/wheel/run.sh

lint: $(STAMP) ## ruff, formatting, mypy strict, import contracts, lock file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(UV) lock --check --quiet

bench: $(STAMP) ## ratios of one run as a table; QUICK=1 for a short one
	@$(BIN)/python -m bench $(if $(QUICK),--quick)

agentdojo: $(STAMP) ## AgentDojo's tasks and attacks through the gateway; ARGS="--suite banking" plays a part
	@$(BIN)/python -m bench.agentdojo $(ARGS)

conformance: $(STAMP) ## the public MCP conformance harness through the gateway
	@tests/conformance/run.sh

wheel: $(STAMP) ## the distribution, in dist/
	$(UV) build --wheel --quiet --build-constraints requirements-build.txt --require-hashes --out-dir dist
