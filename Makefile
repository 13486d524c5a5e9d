# The commands a person uses are the commands CI uses.
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: install quickstart check test test-fast test-versions bench docs format clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: $(INSTALLED)
	$(PYTHON) -m aligndistill run configs/quickstart.yaml

check: $(INSTALLED)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Three workers, also on two cores: tests that start processes and servers wait for them.
test: $(INSTALLED)
	$(PYTHON) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# What starts no process and no server with a model; one that does is an error here, and needs the mark `process`.
test-fast: $(INSTALLED)
	ALIGNDISTILL_TESTS_START_NO_PROCESS=1 $(PYTHON) -m pytest -m "not process" -n 3 --dist loadfile --no-loadscope-reorder

# The same with the newest releases inside the ranges of pyproject.toml, and with their lower bounds; downloads both.
test-versions: $(INSTALLED)
	$(PYTHON) -m tests.versions newest
	$(PYTHON) -m tests.versions lowest

bench: $(INSTALLED)
	$(PYTHON) -m benchmarks

# The site, offline, into site/; fails if a link of it is broken.
docs: $(INSTALLED)
	$(PYTHON) -m website.reference
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(PYTHON) -m website.build site

format: $(INSTALLED)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) runs site .mypy_cache .ruff_cache
