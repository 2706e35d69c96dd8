# Two commands do the main things: `make run` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
BIN := .venv/bin
NOTEBOOK := assignment1.ipynb

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:\t/' | expand -t 12

run: .venv/run  ## measure: execute the notebook from top to bottom, in place (4 to 5 minutes)
	@echo "Executing $(NOTEBOOK). It is replaced only if every cell succeeds."
	@$(BIN)/jupyter nbconvert --to notebook --execute --inplace --log-level=WARN \
		--ExecutePreprocessor.record_timing=False --KernelManager.transport=ipc $(NOTEBOOK) 2> .venv/log \
		|| { sed '1,/CellExecutionError/d' .venv/log | grep . || cat .venv/log; exit 1; }
	@echo "Done. Open it with: make lab"

lab: .venv/run  ## open the notebook in JupyterLab
	$(BIN)/jupyter lab $(NOTEBOOK)

test: .venv/test lint  ## check everything but the longest faults, against a real Kafka (under 15 minutes)
	$(BIN)/python -m pytest tests -m "not long"

test-all: .venv/test lint  ## check everything
	$(BIN)/python -m pytest tests

bench: .venv/bench  ## compare the producers with other clients and tools (some 25 minutes)
	$(BIN)/python benchmarks/producers.py
	$(BIN)/python benchmarks/loops.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/startup.py

lint: .venv/test  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove what the other targets made
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or later is needed: make PYTHON=python3.11"; exit 1)
	$(PYTHON) -m venv .venv

# The stamp files say which requirements are installed already.
.venv/run: requirements.txt | .venv/bin/python
	@echo "Installing the Python packages: about 150 MB, once."
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/test: tests/requirements.txt .venv/run | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

.venv/bench: benchmarks/requirements.txt .venv/run | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

.PHONY: help run lab test test-all bench lint clean
