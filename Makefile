# `make demo`, `make test` and `make app` need Python 3.11, pip, git and make; they
# install everything else into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test app install system-libraries bench bench-utility lint clean

demo: $(VENV)/.installed
	$(BIN)/sfumato demo demo

test: $(VENV)/.installed-test system-libraries
	$(BIN)/ruff check .
	$(BIN)/mypy
	QT_QPA_PLATFORM=offscreen OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q \
		--numprocesses auto --maxprocesses 4 --dist worksteal

app: $(VENV)/.installed system-libraries
	$(BIN)/sfumato-app

bench: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -s --override-ini addopts= tests/benchmarks

# Hours: every run of the table; started again, it goes on.
bench-utility: $(VENV)/.installed-test
	$(BIN)/pip install --quiet --editable '.[test,pretrain]'
	$(BIN)/python -m tests.benchmarks.utility

install: $(VENV)/.installed

# Shared libraries that Qt needs; installs them where it may, else prints the one line.
system-libraries:
	@sh packaging/system-libraries.sh

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
