# Everything a fresh clone needs. `make` alone lists the targets.

PYTHON ?= python3
TOX_REQUIREMENT := tox>=4.30,<5

# A cluster of `make run`: override on the command line, for example `make run PORT=8400 NODES=5`.
NODES ?= 3
PORT ?= 7400
DIR ?= .raftfs-dev

ENVIRONMENT := $(PYTHON) scripts/environment.py
TOX := .tox/runner/bin/python -m tox run

.DEFAULT_GOAL := help
.PHONY: help run dev test lint docs clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 14

# exec: Ctrl-C then reaches raftfs itself, which stops its servers and says so; 130 is its "stopped by Ctrl-C".
run: dev  ## install into .venv and run three nodes and a frontend until Ctrl-C
	@exec .venv/bin/raftfs dev up --nodes $(NODES) --port $(PORT) --dir $(DIR)

dev:  ## make .venv with raftfs in it, linked to this work tree
	@$(ENVIRONMENT) .venv -- --editable .

.PHONY: tox
tox:
	@$(ENVIRONMENT) .tox/runner --clear-on-change .tox -- "$(TOX_REQUIREMENT)"

test: tox  ## lint, types, import rules, docs and all tests
	@$(TOX)

lint: tox  ## formatting, lint, types and import rules
	@$(TOX) -e lint,types,imports

docs: tox  ## build the documentation into docs/_build/html
	@$(TOX) -e docs

clean:  ## remove environments, caches and built documentation (not the data of `make run`)
	rm -rf .venv .tox build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
