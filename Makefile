# `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.

SHELL := /bin/sh
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PYTHON := .venv/bin/python
WORKERS ?= 2

.PHONY: help setup setup-dev image demo test unit mesh lint format bench lock clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:
	@scripts/setup.sh

setup-dev:
	@scripts/setup.sh dev

image: setup  ## Build the sidecar image, if it is not cached
	@$(SUDO) $(PYTHON) -m nginx_mesh.sidecar

demo: setup  ## Run the sample application in a local mesh and show what happens (KEEP=1 leaves it running)
	@$(SUDO) env KEEP=$(KEEP) $(PYTHON) scripts/demo.py

test: setup-dev image lint unit mesh  ## Lint, types, and all tests, real traffic included

lint: setup-dev  ## Style and types of Python, Lua, C
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@luacheck --quiet --config src/nginx_mesh/sidecar/.luacheckrc src/nginx_mesh/sidecar/lua

unit: setup-dev  ## Unit and property tests
	@$(PYTHON) -m pytest -q -n $(WORKERS) tests/unit

mesh: setup-dev image  ## Tests with real sidecars in network namespaces
	@$(SUDO) $(PYTHON) -m pytest -q -n $(WORKERS) --dist loadfile tests/mesh

format: setup-dev  ## Format the Python code
	@$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .

bench: setup-dev image  ## Compare our sidecar pair with plain nginx and with Envoy (ARGS=--quick, --breakdown)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@$(SUDO) $(PYTHON) -m bench $(ARGS)

lock:  ## Write the lock files anew
	@$(PYTHON) -m pip install --quiet pip-tools
	@$(PYTHON) -m piptools compile --quiet --generate-hashes --extra dev --strip-extras --no-emit-index-url \
	    --no-emit-trusted-host --no-emit-find-links -o requirements.lock pyproject.toml

clean:  ## Remove what was built, but not the image cache
	@rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
