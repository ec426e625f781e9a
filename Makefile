# Everything that people and CI run. The logic is in Python; this only names it.

PYTHON ?= python3
PORT ?= 3000
ONCE ?=
ARGS ?=

UV_VERSION := 0.13.9
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
BIN := .venv/bin

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##@ Run it

.PHONY: demo demo-change demo-clean
demo: setup ## Run the platform here with real data; ONCE=1 ends when it is done, PORT=3000
	@exec $(BIN)/forge-demo run --port $(PORT) $(if $(ONCE),--once)

demo-change: setup ## Change the source while the demo runs, and watch the change arrive
	@exec $(BIN)/forge-demo change

demo-clean: setup ## Remove everything that the demo has kept
	@exec $(BIN)/forge-demo clean

##@ Develop

.PHONY: setup test check lint types format
setup: $(UV) ## Install the locked environment into .venv; gets uv when it is missing
	@$(UV) sync --quiet --frozen --all-packages

test: setup ## Run all tests, those of the whole demo last and alone; ARGS="-k name" for some
ifeq ($(strip $(ARGS)),)
	@$(BIN)/pytest -n 2 --dist loadfile --ignore tests/demo --ignore tests/browser
	@$(BIN)/pytest tests/demo tests/browser
else
	@$(BIN)/pytest $(ARGS)
endif

check: lint types ## Run lint and types

lint: setup ## Check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: setup ## Check the types
	@$(BIN)/mypy .

format: setup ## Format the code and repair what can be repaired
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

.tools/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is missing or older than 3.11. Install Python 3.11 or newer, or say where it is:" \
	    "make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "$(PYTHON) has no venv module. Install it (Debian, Ubuntu: apt install python3-venv)," \
	    "or install uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	@$(PYTHON) -m venv .tools
	@.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
