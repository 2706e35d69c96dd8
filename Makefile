# `make run` measures, `make test` checks. Each target sets up what it needs in .venv first.
PYTHON := python3
BIN := .venv/bin
PY := $(BIN)/python
EXECUTE := $(PY) -m harness.run_notebook
PAGES := $(wildcard assignment1.ipynb going_further.ipynb)

# Said on the command line only: variables of the environment with these names mean something else.
P :=
NAME :=
FLAGS :=
PYTEST :=
# What the user has set for other programs of Python's stays with them. NAME reaches handin.py by another way (below).
unexport $(filter PYTHON%,$(.VARIABLES)) JUPYTER_PATH NAME

# Each word of P as an argument, in quotes, so that the shell leaves it alone.
PARAMETERS = $(foreach setting,$(P),'$(subst ','\'',$(setting))')
# JupyterLab doesn't start with a proxy of this kind.
SOCKS := $(foreach name,ALL_PROXY all_proxy HTTPS_PROXY https_proxy HTTP_PROXY http_proxy,$(if $(filter socks%,$($(name))),-u $(name)))
# Empty if the Python of .venv can be used.
BROKEN := $(shell $(PY) -I harness/set_up.py --fits >/dev/null 2>&1 || echo yes)

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:\t/' | expand -t 17

run: .venv/run  ## measure: execute assignment1.ipynb, in place; with P="num_messages=40000 topic=other" a copy
	@$(EXECUTE) assignment1.ipynb $(PARAMETERS)

quick: .venv/run  ## the same with fewer messages, as a copy: a look at how it goes
	@$(EXECUTE) assignment1.ipynb num_messages=2000 blocks=1 $(PARAMETERS)

rehearsal: .venv/run  ## the same on a local Kafka as far away as a cloud, as a copy (some 11 minutes)
	@$(EXECUTE) assignment1.ipynb cluster_choice=distant $(PARAMETERS)

further: .venv/run  ## measure what going_further.ipynb asks, in place; P as above
	@$(EXECUTE) going_further.ipynb $(PARAMETERS)

results: .venv/run  ## list the saved measurements: what each is, and whether it is complete
	@$(PY) -c "from harness.results import overview; print(*overview(), sep=chr(10))"

lab: .venv/run  ## open the notebook in JupyterLab; FLAGS="--no-browser --port 9999" are handed on
	env $(SOCKS) $(PY) -m jupyterlab --LabApp.default_url=/lab/tree/assignment1.ipynb $(FLAGS)

html: .venv/run  ## the notebooks as pages that stand alone: each one file, figures included, links to other files taken out
	@$(PY) -m harness.pages $(PAGES)

handin: export WHOSE := $(value NAME)
handin: .venv/run  ## NAME="Jane Doe": what Canvas needs, as a folder and a zip of it
	@$(PY) -m harness.handin "$$WHOSE"

test: .venv/test lint  ## check the program, but for the longest faults, against a real Kafka; PYTEST="-k name" for a part
	$(PY) -m pytest tests -m "not long and not published" $(PYTEST)

test-all: .venv/test lint  ## check the program, all of it
	$(PY) -m pytest tests -m "not published" $(PYTEST)

check-published: .venv/test  ## check that notebooks, README and saved results, as they are here, agree
	@echo "Compared: notebooks, README and saved results. After a measurement of your own they differ, which is no fault."
	$(PY) -m pytest tests -m published $(PYTEST)

bench: .venv/run  ## compare the producers with other ways to send (some 2 minutes)
	$(PY) -m benchmarks.producers

lint: .venv/test  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:  ## remove what the other targets made, but neither results nor hand-ins, nor a .venv that you have made
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis $(PAGES:.ipynb=.html) .venv/run .venv/test
	@if [ -e .venv/made_by_make ] && [ ! -L .venv ]; then rm -rf .venv; fi

# Where .venv isn't there or can't be used.
venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or later is needed: make PYTHON=python3.11"; exit 1)
	@$(PYTHON) -m harness.set_up

# The stamp files say which requirements are installed already.
.venv/run: requirements.txt constraints.txt $(if $(BROKEN),venv)
	@echo "Installing the Python packages, once: about 160 MB to download, 590 MB in the folder .venv."
	@$(PY) -m harness.set_up requirements.txt
	@echo "Fetching Apache Kafka, once."
	@$(PY) -m local_kafka --prepare || true  # with a cloud account it isn't needed
	@touch $@

.venv/test: tests/requirements.txt .venv/run
	@$(PY) -m harness.set_up tests/requirements.txt
	@touch $@

.PHONY: venv help run quick rehearsal further results lab html handin test test-all check-published bench lint clean
