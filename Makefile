# Everything runs from .venv; nothing is installed outside of this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

NATIVE := hatch_build.py $(wildcard matcher/copies/native/*.[ch])

.PHONY: demo test test-long lint bench bench-crawl bench-store bench-bus bench-matcher bench-distributed bench-copies bench-watermark lock clean install install-dev

install: $(VENV)/.demo
install-dev: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("filigrane needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements.lock pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "installing filigrane and what its demo needs into $(VENV) ..."
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "installing filigrane and what its tests need into $(VENV) ..."
	$(PIP) install --require-hashes -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.bench: requirements-bench.lock bench/contrib.lock pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "installing filigrane and the peers of its benchmarks into $(VENV) ..."
	$(PIP) install --require-hashes -r requirements-bench.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	$(PIP) install --require-hashes --no-deps --upgrade --target $(VENV)/contrib -r bench/contrib.lock
	@touch $@

demo: install
	$(BIN)/python -m filigrane.demo $(if $(ONCE),--once)

test: install-dev
	$(BIN)/python -m tests.servers
	$(BIN)/python -m pytest $(ARGS)

# The full counts: hours; goes on where it was cut, and writes docs/test-long.md. ARGS="-k kafka" takes some.
test-long: install-dev
	$(BIN)/python -m tests.servers
	$(BIN)/python -m pytest -m long -v --timeout 3600 -p tests.long --ledger bench-out/long.jsonl $(ARGS)

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: bench-crawl bench-store bench-bus bench-matcher bench-copies bench-watermark

bench-crawl: install-dev
	$(BIN)/python -m bench.crawl $(if $(SITE),--site $(SITE)) $(if $(QUICK),--quick)

bench-store: install-dev
	$(BIN)/python -m tests.servers s3
	$(BIN)/python -m bench.store $(if $(QUICK),--quick)

bench-bus: install-dev
	$(BIN)/python -m tests.servers kafka
	$(BIN)/python -m bench.bus $(if $(QUICK),--quick)

bench-matcher: install-dev
	$(BIN)/python -m tests.servers
	$(BIN)/python -m bench.matcher $(if $(QUICK),--quick)
	$(BIN)/python -m bench.matcher --distributed $(if $(QUICK),--quick)

# PHOTOS=FOLDER DISTRACTORS=FOLDER SAME_SCENE=FOLDER: without them pictures that everybody has. PART=recall: that part alone.
bench-copies: $(VENV)/.bench
	$(BIN)/python -m bench.copies $(if $(PHOTOS),--photos $(PHOTOS)) $(if $(DISTRACTORS),--distractors $(DISTRACTORS)) \
		$(if $(SAME_SCENE),--same-scene $(SAME_SCENE)) $(if $(QUICK),--quick) $(PART:%=--only %) $(ARGS)

# PHOTOS=FOLDER: without it pictures that everybody has. PART=robustness: that part alone. Goes on where it was cut.
bench-watermark: $(VENV)/.bench
	$(BIN)/python -m bench.watermark $(if $(PHOTOS),--photos $(PHOTOS)) $(if $(QUICK),--quick) $(PART:%=--only %) $(ARGS)

# SITES="FOLDER FOLDER": trees of static pages, such as those of Debian's packages of documentation.
bench-distributed: install-dev
	$(BIN)/python -m tests.servers
	$(BIN)/python -m bench.distributed $(SITES:%=--site %)

# New locks: hashes, no addresses, the same file for every platform.
lock: $(BIN)/python
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --extra demo --extra build -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --extra dev --extra build -o requirements-dev.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -c requirements-dev.lock --extra bench --extra build -o requirements-bench.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-deps -o bench/contrib.lock bench/contrib.in

clean:
	rm -rf $(VENV) build dist *.egg-info matcher/copies/native/native.so
