# Everything runs from .venv, made here with the newest Python 3.11+ found. Another one: make test PYTHON=python3.13
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test soak simulate celery-suite bench check format wheel clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=
# Most tests wait for processes more than they compute, so more of them run at once than there are cores.
JOBS ?= 4
# No test of a kind is no failure: ARGS may ask for the other kind.
tests = $(BIN)/pytest $(1) $(ARGS) || [ $$? -eq 5 ] || failed=1

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/base.stamp ## Analyse this machine's standard library as one durable workflow (ARGS="--crash", ...)
	$(BIN)/orchestra demo $(ARGS)

test: $(VENV)/all.stamp ## Run all tests; servers they need are found, started or installed (ARGS="-k name", ...)
	@failed=0; $(call tests,-m "not soak and not alone" -n $(JOBS) --dist loadscope --no-loadscope-reorder); \
	$(call tests,-m "alone and not soak"); exit $$failed

soak: $(VENV)/all.stamp ## Run the tests that take minutes or gigabytes: many crashes, large graphs
	$(BIN)/pytest -m soak $(ARGS)

simulate: $(VENV)/all.stamp ## Hunt for holes with simulated faults (SEEDS=20000), or play one seed again (SEED=7)
	$(BIN)/python -m orchestra.testing.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),20000))

celery-suite: $(VENV)/all.stamp ## Run Celery's own tests on our results (BACKEND=postgresql|sqlite|redis|stock, BROKER=redis|rabbitmq)
	$(BIN)/python -m tests.celery_suite --backend $(or $(BACKEND),postgresql) --broker $(or $(BROKER),redis) $(ARGS)

bench: $(VENV)/all.stamp ## Measure Orchestra beside its peers (CASE=chain PEERS=celery,taskiq ROUNDS=5 SIZE=quick)
	$(BIN)/python -m benchmarks $(if $(CASE),--case $(CASE)) $(if $(PEERS),--peers $(PEERS)) $(if $(WITHOUT),--without $(WITHOUT)) \
		--rounds $(or $(ROUNDS),5) --size $(or $(SIZE),full) $(ARGS)

check: $(VENV)/all.stamp ## Format, lint, types and import contracts, as the CI runs them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

format: $(VENV)/all.stamp ## Format the code and repair what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/all.stamp ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## Remove the environment, caches and what was built
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what the environment holds, so that nothing is installed twice.
$(VENV)/base.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing orchestra into $(VENV)"
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/all.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing orchestra and its development tools into $(VENV)"
	$(PIP) install --constraint constraints.txt --editable '.[all]'
	@touch $(VENV)/base.stamp $@

$(BIN)/python:
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		echo "Making $(VENV) with $$python"; \
		"$$python" -m venv $(VENV) && exit 0; \
		rm -rf $(VENV); \
		echo "$$python cannot make a virtual environment: install its venv module (Debian: python3-venv)." >&2; \
		exit 1; \
	done; \
	echo "Orchestra needs Python 3.11 or newer; none of '$(or $(PYTHON),python3.13 python3.12 python3.11 python3)' is." >&2; \
	exit 1
