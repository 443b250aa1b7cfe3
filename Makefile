# `make train TASK=Ant` and `make test` work on a machine that has Python and nothing else.
PYTHON ?= python3
TASK ?= Ant
ARGS ?=
PIP := .venv/bin/pip install --quiet -c constraints.txt

.PHONY: train test install install-test

# Only what training needs.
install: .venv/installed

# The rest: every engine, every library that there is an adapter for, and the tools.
install-test: .venv/installed-test

.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e .
	touch $@

.venv/installed-test: .venv/installed
	$(PIP) -e ".[test]"
	touch $@

train: install
	.venv/bin/dualfid train task=$(TASK) $(ARGS)

test: install-test
	.venv/bin/python -m pytest $(ARGS)
