# On a fresh machine with Python 3.11+ and make, `make test` is all there is to know.

PYTHON ?= python3
# Set these on the command line only: an exported VENV belongs to somebody else, and we remove ours to rebuild it.
PYTHONS = 3.11 3.12 3.13
VENV    = .venv
ARGS    =

BIN    := $(VENV)/bin
BENCH  := benchmarks/hit_path.py
BENCHES = $(filter $(BENCH),$(wildcard benchmarks/*.py)) $(filter-out $(BENCH),$(sort $(wildcard benchmarks/[!_]*.py)))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help test lint types unit test-all demo bench race race-behind coherence chaos pictures redis-server clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

test: lint types unit ## everything: lint, types, tests

lint: $(VENV)/.with-dev ## ruff, its formatter, the import contracts
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.with-dev ## mypy --strict
	$(BIN)/python -m mypy --strict

unit: $(VENV)/.with-dev redis-server ## pytest only; ARGS="-k name"
	@# Three on two processors, since tests wait for servers; whoever is done first takes over from the others.
	@# What asks for a part of the tests may ask for nothing of one half: that is 5 to pytest.
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not alone" $(ARGS) || [ $$? -eq 5 -a -n "$(ARGS)" ]
	$(BIN)/python -m pytest -m alone $(ARGS) || [ $$? -eq 5 -a -n "$(ARGS)" ]

test-all: redis-server ## pytest on each of PYTHONS that runs here
	@set -e; for version in $(PYTHONS); do \
	    if python$$version -c '' >/dev/null 2>&1; then \
	        echo "== python$$version"; \
	        $(MAKE) --no-print-directory unit PYTHON=python$$version VENV=.venv-$$version; \
	    else \
	        echo "== python$$version does not run here: skipped"; \
	    fi; \
	done

demo: $(VENV)/.with-cli ## the guided tour; ARGS=--quick
	$(BIN)/cachecraft demo $(ARGS)

bench: $(VENV)/.with-bench redis-server ## every benchmark, against its peers
	@set -e; for script in $(BENCHES); do echo "== $$script"; $(BIN)/python $$script $(ARGS); done

SECONDS = 60
race: $(VENV)/.with-dev redis-server ## processes that read and write, with faults mixed in; SECONDS=60
	$(BIN)/python -m tests.race.harness --seconds $(SECONDS)

race-behind: $(VENV)/.with-dev redis-server ## the same where writes wait, and workers are killed; SECONDS=60
	$(BIN)/python -m tests.race.behind --seconds $(SECONDS)

coherence: $(VENV)/.with-dev redis-server ## the same through near caches, without and with faults; SECONDS=60 ARGS=--mutants
	$(BIN)/python -m tests.coherence.harness --seconds $(SECONDS) $(ARGS)

chaos: $(VENV)/.with-dev redis-server ## production under a hail of faults, then calm; SECONDS=60 ARGS="--seed 1"
	$(BIN)/python -m tests.chaos.harness --seconds $(SECONDS) $(ARGS)

pictures: $(VENV)/.with-dev redis-server ## the pictures of the documentation, drawn anew
	$(BIN)/python -m tests.pictures

redis-server:
	@.ci/ensure-redis

# The stamps live inside the environment, so a new pyproject.toml (or `make clean`) starts over with both.
$(VENV)/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "$(PYTHON) is missing or older than 3.11; name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >$(VENV).log 2>&1 \
	    || { cat $(VENV).log >&2; rm -rf $(VENV) $(VENV).log; \
	         echo "$(PYTHON) cannot create a virtual environment (on Debian: apt-get install python3-venv)." >&2; exit 1; }
	@rm -f $(VENV).log
	@touch $@

$(VENV)/.with-%: $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

clean: ## remove environments and caches
	rm -rf .venv .venv-* build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
