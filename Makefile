# Deflector: `make help` lists what there is. Everything a target needs is installed by `make setup`, which it calls.
SHELL := /bin/bash
PY    := .venv/bin/python
export PYTHONDONTWRITEBYTECODE := 1
.PHONY: help setup demo test test-k8s check bench goldens protos fuzz clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[36m%-9s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install Debian packages, the virtual environment and generated code (again only when they changed)
	@bash setup.sh

demo: setup ## Tell the Star Wars story on this machine's kernel and a stock Envoy (needs root)
	@.venv/bin/deflector demo starwars

check: setup ## Lint, types and import contracts: what every commit must pass
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

test: check ## Everything: unit, feature, privileged tests and the conformance suites (needs root)
	$(PY) -m pytest --durations=10

test-k8s: setup ## The tests of the API server's side against the one that KUBECONFIG names (stories of agents need root)
	@[ -n "$$KUBECONFIG" ] || { echo "set KUBECONFIG to the API server to test against" >&2; exit 2; }
	$(PY) -m pytest tests/cluster tests/operator tests/conformance/test_cluster_run.py --durations=5

bench: setup ## The scorecard, as a table and build/bench.json; ONLY=name runs one benchmark (needs root)
	@$(PY) -m benchmarks $(if $(ONLY),--only $(ONLY))

fuzz: setup ## New random examples for every property test, parsers and oracle: EXAMPLES=1000, ONLY=name (needs root)
	$(PY) -m pytest tests -m hypothesis --examples $(or $(EXAMPLES),1000) --timeout 0 $(if $(ONLY),-k '$(ONLY)')

goldens: setup ## Rewrite the golden files from today's behaviour; never in CI
	@[ -z "$$CI" ] || { echo "goldens are not rewritten in CI" >&2; exit 2; }
	$(PY) -m pytest tests --goldens -m "not privileged"

PROTOS := $(wildcard xds/protos/deflector/l7/v1/*.proto)
protos: setup ## Make the code of our own protos again (it is committed; a test compares)
	$(PY) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. $(PROTOS)

clean: ## Remove what setup built (the virtual environment and build/)
	rm -rf .venv build
