# `make run` measures, `make test` checks. Each target sets up what it needs in .venv first.
PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
# Installs in a quarter of pip's time; constraints.txt is made with it, too.
UV := uv==0.13.9
INSTALL := $(PY) -m uv pip install --python $(PY) -c constraints.txt
EXECUTE := $(PY) -m harness.run_notebook
TO_HTML := $(PY) -m nbconvert --log-level=WARN --to html --template classic --template-file harness/page.html.j2 \
	--embed-images
PAGES := $(wildcard assignment1.ipynb going_further.ipynb)
# Each word of P as an argument, in quotes, so that the shell leaves it alone.
PARAMETERS = $(foreach setting,$(P),'$(subst ','\'',$(setting))')
# What is wrong with .venv, if anything: it isn't there, is half made, or its Python was replaced by another version.
BROKEN := $(shell { $(PY) -c 'import uv'; } 2>/dev/null || echo yes)

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
	$(PY) -m jupyterlab $(FLAGS) assignment1.ipynb

html: .venv/run  ## the notebooks as pages that stand alone: each one file, figures included, links to other files taken out
	@$(TO_HTML) $(PAGES)
	@for page in $(PAGES:.ipynb=.html); do \
		sed -E 's|<a href="[^":#]*">([^<]*)</a>|\1|g' $$page > $$page.part && mv $$page.part $$page; done
	@echo "Written: $(PAGES:.ipynb=.html)"

handin: .venv/run  ## NAME="Jane Doe": what Canvas needs, as a folder and a zip of it
	@$(TO_HTML) $(PAGES)
	@$(PY) -m harness.handin "$(NAME)"

test: .venv/test lint  ## check the program, but for the longest faults, against a real Kafka; PYTEST="-k name" for a part
	$(PY) -m pytest tests -m "not long and not published" $(PYTEST)

test-all: .venv/test lint  ## check the program, all of it
	$(PY) -m pytest tests -m "not published" $(PYTEST)

check-published: .venv/test  ## check that notebooks, README and saved results, as they are here, agree
	$(PY) -m pytest tests -m published $(PYTEST)

bench: .venv/run  ## compare the producers with other ways to send (some 2 minutes)
	$(PY) -m benchmarks.producers

lint: .venv/test  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:  ## remove what the other targets made, but not results
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis $(PAGES:.ipynb=.html)

# pyvenv.cfg is written once, when .venv is made; what was installed before that is gone.
.venv/pyvenv.cfg: $(if $(BROKEN),anew)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or later is needed: make PYTHON=python3.11"; exit 1)
	@rm -rf .venv
	$(PYTHON) -m venv .venv
	PIP_USER=0 $(PY) -m pip install --quiet --disable-pip-version-check $(UV)

# The stamp files say which requirements are installed already.
.venv/run: requirements.txt constraints.txt .venv/pyvenv.cfg
	@echo "Installing the Python packages, once: about 150 MB to download, 560 MB in the folder .venv."
	$(INSTALL) -r requirements.txt
	@echo "Fetching Apache Kafka, once."
	@$(PY) -m local_kafka --prepare || true  # with a cloud account it isn't needed
	@touch $@

.venv/test: tests/requirements.txt .venv/run
	$(INSTALL) -r tests/requirements.txt
	@touch $@

.PHONY: anew help run quick rehearsal further results lab html handin test test-all check-published bench lint clean
