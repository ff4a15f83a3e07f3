# Every target sets itself up in .venv; nothing but Python 3.11+, make and PyPI is assumed.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := test,lint

.PHONY: docs demo test test-deep lint bench claims index format clean setup

setup: .venv/.installed

.venv/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

.venv/.demo: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/.bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

.venv/.docs: .venv/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

demo: .venv/.demo
	$(BIN)/python examples/digits.py

test: setup
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

# Every law of every method on many drawn calls, other ones each time; takes hours. KOFN_SEED repeats a run.
test-deep: setup
	KOFN_EXAMPLES=$${KOFN_EXAMPLES:-1000} $(BIN)/python -m pytest -q tests/laws

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

index: .venv/.demo
	$(BIN)/python -m kofn.indexing

# A folder that opens and searches from disk: docs/_build/html/index.html.
docs: .venv/.docs
	$(BIN)/sphinx-build -W --keep-going -q -j auto docs docs/_build/html
	@echo "open docs/_build/html/index.html"

claims: setup
	$(BIN)/python -m claims --all --write

bench: .venv/.bench
	$(BIN)/python -m benchmarks select --json out/bench_select.json

clean:
	rm -rf .venv out build dist
