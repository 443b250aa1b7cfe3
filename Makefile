# `make train TASK=Ant` and `make test` work on a machine that has Python and nothing else.
PYTHON ?= python3
TASK ?= Ant
ARGS ?=
PIP := .venv/bin/pip install --quiet -c constraints.txt

.PHONY: train test docs install install-test

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

.venv/installed-docs: .venv/installed
	$(PIP) -e ".[docs]"
	touch $@

train: install
	.venv/bin/dualfid train task=$(TASK) $(ARGS)

# Each file's tests are run by one of several processes, the longest files first (tests/conftest.py). There is one more than
# cores, since some tests wait. Tests that measure time run by themselves afterwards. Status 5 means that there were none.
test: install-test
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $$(($$(nproc) + 1)) --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not alone" $(ARGS) || [ $$? -eq 5 ]
	.venv/bin/python -m pytest -m alone $(ARGS) || [ $$? -eq 5 ]

# The documentation as a site, in build/docs. A warning, such as of a link that leads nowhere, is an error.
docs: .venv/installed-docs
	.venv/bin/sphinx-build -W --keep-going -q docs build/docs
