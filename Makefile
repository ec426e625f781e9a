# Everything that people and CI run. The logic is in Python; this only names it.

PYTHON ?= python3
PORT ?= 3000
ONCE ?=
ARGS ?=

REGISTRY ?=
NAMESPACE ?= forge
ENVIRONMENT ?= demo
# Files of values that win over those of the environment, and over the platform's for `make up`.
VALUES ?=
PLATFORM_VALUES ?=
# A definite tag also where the tree holds what no commit does.
TAG := $(or $(TAG),$(shell git describe --always --abbrev=12 --dirty=-$$(date +%s) 2>/dev/null))

UV_VERSION := 0.13.9
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
BIN := .venv/bin
LOCATIONS := $(sort $(patsubst code_locations/%/pyproject.toml,%,$(wildcard code_locations/*/pyproject.toml)))

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##@ Run it

.PHONY: demo demo-change demo-clean
demo: setup ## Run the platform here with real data; ONCE=1 ends when it is done, PORT=3000
	@exec $(BIN)/forge-demo run --port $(PORT) $(if $(ONCE),--once)

demo-change: setup ## Change the source while the demo runs, and watch the change arrive
	@exec $(BIN)/forge-demo change

demo-clean: setup ## Remove everything that the demo has kept
	@exec $(BIN)/forge-demo clean

##@ Deploy: KUBECONFIG and REGISTRY say where; TAG is the commit unless given

.PHONY: images image up deploy e2e helm-dependencies require-registry
images: ## Build and push all images
	@$(MAKE) --no-print-directory -j 2 image-platform image-demo $(LOCATIONS:%=image-%) TAG=$(TAG)

image: image-$(or $(LOCATION),LOCATION-is-not-set) ## Build and push one; LOCATION=orders

up: helm-dependencies images ## Install a working platform with the demo's data, and all locations
	@kubectl create namespace $(NAMESPACE) --dry-run=client --output yaml | kubectl apply --filename - >/dev/null
	@kubectl label --overwrite namespace $(NAMESPACE) pod-security.kubernetes.io/enforce=restricted >/dev/null
	@helm upgrade --install forge helm/platform --namespace $(NAMESPACE) --wait --timeout 5m \
	  --values helm/platform/values-dev.yaml $(PLATFORM_VALUES:%=--values %) \
	  $(foreach part,dagsterWebserver dagsterDaemon,--set-string dagster.$(part).image.repository=$(PREFIX)/platform,dagster.$(part).image.tag=$(TAG)) \
	  --set-string dev.image.repository=$(PREFIX)/demo,dev.image.tag=$(TAG) >/dev/null
	@$(MAKE) --no-print-directory $(LOCATIONS:%=release-%) TAG=$(TAG)
	@echo "The UI: kubectl --namespace $(NAMESPACE) port-forward service/forge-dagster-webserver 3000, then http://localhost:3000"

deploy: image ## Build, push and release one location; LOCATION=orders TAG=1.2.3 ENVIRONMENT=demo
	@$(MAKE) --no-print-directory release-$(LOCATION) TAG=$(TAG)

release-%: setup helm-dependencies require-registry
	@values="$$($(BIN)/forge-values helm/code-location/values.yaml $(foreach file,values $(ENVIRONMENT),code_locations/$*/deploy/$(file).yaml) $(VALUES) \
	  --repository $(PREFIX)/$* --tag $(TAG))" || exit 1; \
	printf '%s\n' "$$values" | \
	helm upgrade --install $* helm/code-location --namespace $(NAMESPACE) --values - \
	  $(ATOMIC) --timeout 5m >/dev/null || { \
	  kubectl --namespace $(NAMESPACE) get events --field-selector type=Warning --sort-by=.metadata.creationTimestamp \
	    --output custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message | grep "^$*-" | tail -5 >&2; \
	  exit 1; }
	@echo "$* is served from $(PREFIX)/$*:$(TAG)"

e2e: setup helm-dependencies require-registry ## Prove it all on the cluster, from nothing; ARGS="-k name" for some
	@$(BIN)/pytest tests/helm tests/e2e $(ARGS)

PREFIX = $(REGISTRY)/open-forge
# Helm 4 has a new name for it.
ATOMIC = $(shell helm upgrade --help | grep -q -- --rollback-on-failure && echo --rollback-on-failure || echo --atomic)
LABELS = --build-arg VERSION=$(TAG) --build-arg REVISION=$(shell git describe --always --abbrev=40 --dirty --exclude '*')
build = DOCKER_BUILDKIT=1 docker build --quiet $(LABELS) $(2) --tag $(PREFIX)/$(1):$(TAG) . >/dev/null && \
  docker push --quiet $(PREFIX)/$(1):$(TAG)

image-platform: require-registry
	@$(call build,platform,--target platform)

image-demo: require-registry
	@$(call build,demo,--target code-location --build-arg LOCATION=demo --build-arg PACKAGE=forge-demo --build-arg FOLDER=demo)

image-%: require-registry
	@test -d code_locations/$* || { echo "There is no code_locations/$*: set LOCATION to one of $(LOCATIONS)" >&2; exit 1; }
	@$(call build,$*,--target code-location --build-arg LOCATION=$*)

helm-dependencies:
	@helm/dependencies

require-registry:
	@test -n "$(REGISTRY)" || { echo "Set REGISTRY to the registry that the cluster pulls from" >&2; exit 1; }

##@ Develop

.PHONY: setup test catalogs kill check lint types format bench
setup: $(UV) ## Install the locked environment into .venv; gets uv when it is missing
	@$(UV) sync --quiet --frozen --all-packages

test: setup ## Run all tests, those of the whole demo last and alone; ARGS="-k name" for some
ifeq ($(strip $(ARGS)),)
	@$(BIN)/pytest -n 2 --dist loadfile -m "not reference" --ignore tests/demo --ignore tests/browser
	@$(BIN)/pytest tests/demo tests/browser
else
	@$(BIN)/pytest $(ARGS)
endif

catalogs: setup ## Run what is tested on several catalogs on Apache Iceberg's own REST server, too
	@$(BIN)/pytest -n 2 -m reference platform/tests $(ARGS)

kill: setup ## Kill what moves the rows, again and again, and compare; FORGE_KILLS=200
	@$(BIN)/pytest tests/kill $(ARGS)

bench: setup ## Measure beside floors and peers; ARGS="--ours extract", ARGS=--help
	@cd benchmarks && $(abspath $(UV)) run --quiet --frozen python -W ignore -m forge_benchmarks $(ARGS)

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
