# Everything a fresh clone needs. `make` alone lists the targets.

PYTHON ?= python3
TOX_REQUIREMENT := tox>=4.30,<5

# The cluster of `make run`, for example `make run PORT=8400 NODES=5 DIR=/tmp/demo`. A directory that holds a cluster
# already knows its own number of nodes and its port.
NODES ?=
PORT ?=
DIR ?=

ENVIRONMENT := $(PYTHON) scripts/environment.py
TOX := .tox/runner/bin/python -m tox run

.DEFAULT_GOAL := help
.PHONY: help run dev test test-deploy lint docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

run: dev  ## install into .venv and run three nodes and a frontend until Ctrl-C
	@echo 'raftfs: in another terminal, type first:  export PATH="$(CURDIR)/.venv/bin:$$PATH"'
	@.venv/bin/raftfs dev up $(if $(NODES),--nodes $(NODES)) $(if $(PORT),--port $(PORT)) $(if $(DIR),--dir $(DIR))

dev:  ## make .venv with raftfs in it, linked to this work tree
	@$(ENVIRONMENT) .venv -- --editable .

.PHONY: tox
tox:
	@$(ENVIRONMENT) .tox/runner --clear-on-change .tox -- "$(TOX_REQUIREMENT)"

test: tox  ## lint, types, import rules, playbooks, docs and all tests
	@$(TOX)

test-deploy: tox  ## the playbooks on machines that boot (root; docs/design/deploy-test.md)
	@$(TOX) -e deploy

lint: tox  ## formatting, lint, types, import rules and playbooks
	@$(TOX) -e lint,types,imports,playbooks

docs: tox  ## build the documentation into docs/_build/html
	@$(TOX) -e docs

clean:  ## remove environments, caches and built documentation (not the data of `make run`)
	rm -rf .venv .tox build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
