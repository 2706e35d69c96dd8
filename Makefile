# `make run` measures, `make test` checks. Each target sets up what it needs in .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
EXECUTE := $(BIN)/python -m harness.run_notebook
PAGES := $(wildcard assignment1.ipynb going_further.ipynb)
# Each word of P as an argument, in quotes, so that the shell leaves it alone.
PARAMETERS = $(foreach each,$(P),-p '$(subst ','\'',$(each))')

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:\t/' | expand -t 12

run: .venv/run  ## measure: execute assignment1.ipynb, in place; with P="num_messages=40000 topic=other" a copy
	@$(EXECUTE) assignment1.ipynb $(PARAMETERS)

quick: .venv/run  ## the same with fewer messages, as a copy: a look at how it goes, in half a minute
	@$(EXECUTE) assignment1.ipynb -p num_messages=2000 -p runs_each=1 $(PARAMETERS)

rehearsal: .venv/run  ## the same on a local Kafka as far away as a cloud, as a copy (some 11 minutes)
	@$(EXECUTE) assignment1.ipynb -p cluster_choice=distant $(PARAMETERS)

readme: .venv/run  ## write into README.md what it says of the newest saved runs
	@$(BIN)/python -m harness.readme

further: .venv/run  ## measure what going_further.ipynb asks, in place; P as above
	@$(EXECUTE) going_further.ipynb $(PARAMETERS)

lab: .venv/run  ## open the notebook in JupyterLab; FLAGS="--no-browser --port 9999" are handed on
	$(BIN)/jupyter lab $(FLAGS) assignment1.ipynb

html: .venv/run  ## the notebooks as pages for Canvas, each one file, figures included
	$(BIN)/jupyter nbconvert --log-level=WARN --to html --template classic --template-file harness/page.html.j2 \
		--embed-images $(PAGES)
	@echo "Written: $(PAGES:.ipynb=.html)"

test: .venv/test lint  ## check everything but the longest faults, against a real Kafka; PYTEST="-k name" for a part
	$(BIN)/python -m pytest tests -m "not long" $(PYTEST)

test-all: .venv/test lint  ## check everything
	$(BIN)/python -m pytest tests $(PYTEST)

bench: .venv/bench  ## compare the producers with other clients and tools (some 6 minutes)
	$(BIN)/python benchmarks/producers.py

lint: .venv/test  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove what the other targets made, but not results
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis $(PAGES:.ipynb=.html)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or later is needed: make PYTHON=python3.11"; exit 1)
	$(PYTHON) -m venv .venv

# The stamp files say which requirements are installed already.
.venv/run: requirements.txt constraints.txt | .venv/bin/python
	@echo "Installing the Python packages, once: about 150 MB to download, 650 MB in the folder .venv."
	$(PIP) -r requirements.txt
	@touch $@

.venv/test: tests/requirements.txt benchmarks/requirements.txt .venv/run
	$(PIP) -r tests/requirements.txt
	@touch $@

.venv/bench: benchmarks/requirements.txt .venv/run
	$(PIP) -r benchmarks/requirements.txt
	@touch $@

.PHONY: help run quick rehearsal readme further lab html test test-all bench lint clean
