# Each target sets up what it needs. `make grade` and `make test` are all that a fresh machine takes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= grades
HW ?= hw1

.PHONY: setup sandbox grade test lint bench clean

setup: $(VENV)/installed sandbox

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The sandbox is bubblewrap, a package of every Linux distribution.
sandbox:
	@command -v bwrap >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq bubblewrap >/dev/null; \
	else \
		echo "bubblewrap is missing. Install it and run make again:  sudo apt-get install bubblewrap" >&2; exit 1; \
	fi

grade: setup
	$(BIN)/python -m grader.examples.cohort $(HW) $(OUT)/$(HW)-submissions
	$(BIN)/grader grade $(HW) $(OUT)/$(HW)-submissions --received $(OUT)/$(HW)-submissions/received.csv --out $(OUT)/$(HW)

test: setup
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.grading
	$(BIN)/python -m benchmarks.generation

clean:
	rm -rf $(VENV) $(OUT)
