# WCP360. `make` alone explains itself.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON_BIN := .venv/bin/python
PYTEST := $(PYTHON_BIN) -m pytest
PACKAGE_LISTS := packaging/dev/debian-packages.txt packaging/lab/debian-packages.txt
DETACH ?=
export PYTHONDONTWRITEBYTECODE :=

##@ Use it
.PHONY: run
run: setup ## Start a controller and two real nodes that serve a site (DETACH=1 returns once it is ready)
	@$(PYTHON_BIN) packaging/quickstart/quickstart.py up $(if $(DETACH),--detach)

.PHONY: stop
stop: ## End what `make run` started; its data stays for the next `make run`
	@if [ -x $(PYTHON_BIN) ]; then $(PYTHON_BIN) packaging/quickstart/quickstart.py stop; fi

.PHONY: clean
clean: ## End it and leave nothing: nodes, data, virtual environment, caches
	@if [ -x $(PYTHON_BIN) ]; then $(PYTHON_BIN) packaging/quickstart/quickstart.py clean; fi
	@rm -rf .run .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Test it
.PHONY: test
test: setup test-packages ## Everything: checks, unit, integration on both databases, end to end on real nodes
	@packaging/dev/run-tests

.PHONY: check
check: setup lint types arch fast ## Lint, types, architecture, fast tests (under two minutes)

.PHONY: lint
lint: setup ## Style and import rules
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/lint-imports --no-cache

.PHONY: types
types: setup ## Strict types
	@.venv/bin/mypy

.PHONY: arch
arch: setup ## The house rules that a program can check
	@$(PYTEST) -q tests/architecture

.PHONY: fast
fast: setup ## Unit, case and contract tests
	@$(PYTEST) -q -n auto tests/unit tests/cases tests/contract

.PHONY: integration
integration: setup test-packages ## Controller, simulated agents, SQLite and PostgreSQL
	@$(PYTEST) -q -n auto tests/integration

.PHONY: browser
browser: setup test-packages ## The pages that people see, in Debian's Chromium
	@$(PYTEST) -q -n auto --maxprocesses=4 tests/browser

.PHONY: e2e
e2e: setup ## Real Debian nodes on this machine (needs root)
	@$(PYTEST) -q tests/e2e tests/lab

.PHONY: bench
bench: setup test-packages ## Measure every bar on this machine (root; about 40 minutes; NAMES="roundtrip idle", QUICK=1)
	@$(PYTHON_BIN) -m tests.bench $(NAMES) $(if $(QUICK),--quick)

##@ Work on it
.PHONY: setup
setup: ## Install what this machine lacks (Debian packages, .venv)
	@packaging/dev/install-debian-packages $(PACKAGE_LISTS)
	@packaging/dev/setup-venv

.PHONY: test-packages
test-packages:
	@packaging/dev/install-debian-packages packaging/dev/debian-packages-test.txt

.PHONY: lock
lock: setup ## Resolve the dependencies of pyproject.toml afresh into requirements.lock
	@.venv/bin/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet --upgrade -o requirements.lock
	@.venv/bin/uv pip compile pyproject.toml --extra agent --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet -c requirements.lock -o packaging/bundle/requirements-agent.lock
	@.venv/bin/uv pip compile pyproject.toml --extra controller --extra cli --extra scale --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet -c requirements.lock -o packaging/controller/requirements.lock
	@sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | .venv/bin/uv pip compile - --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet -c requirements.lock -o packaging/controller/requirements-build.lock

.PHONY: fmt
fmt: setup ## Format the code
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --quiet --fix .

.PHONY: bundle
bundle: setup ## Build what new nodes download (OUT=folder, the controller's bundle_dir)
	@$(PYTHON_BIN) packaging/bundle/build_bundle.py --out "$(or $(OUT),/var/lib/wcp360/bundles)"

.PHONY: migration
migration: setup ## Make a migration from the models (NAME="what changes")
	@WCP360_DATA_DIR="$(CURDIR)/.run/migration" $(PYTHON_BIN) -m controller migrate --autogenerate "$(NAME)"

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
