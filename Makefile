# `make train TASK=Ant` and `make test` work on a machine that has Python and nothing else.
PYTHON ?= python3
TASK ?= Ant
ARGS ?=

.PHONY: train test install

install: .venv/installed

.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet torch -c constraints.txt
	.venv/bin/pip install --quiet -e ".[test]" -c constraints.txt
	touch $@

train: install
	.venv/bin/python train.py task=$(TASK) $(ARGS)

test: install
	.venv/bin/python -m pytest $(ARGS)
