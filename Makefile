# Every target sets itself up in .venv; nothing but Python 3.11+, make and PyPI is assumed.
PYTHON ?= python3
BIN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)
EXTRAS := test,lint
# Processes that tests start would each compile every module anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: docs demo test test-deep test-oldest newest lint bench claims claims-fresh claims-ten audit dist index format clean setup

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
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

# The attack: every law of every method on many drawn calls, other ones each time, against brute force; hostile values in
# every place of a call, drawn command lines, kills, and every limit of every method. Prints its counts; takes hours.
# KOFN_SEED repeats a run, KOFN_ATTACK and KOFN_EXAMPLES scale it (1 and 1000: 10,000 hostile calls, 100 kills). Stopped,
# the same command goes on where it was, until the code or the scale is another.
test-deep: setup
	KOFN_JOURNAL=build/test-deep.jsonl KOFN_EXAMPLES=$${KOFN_EXAMPLES:-1000} $(BIN)/python -m pytest -q tests/laws tests/cli/test_fuzz.py tests/cli/test_kills.py \
		tests/core/test_hostile_calls.py tests/core/test_limits.py tests/io/test_files_that_are_none.py \
		tests/io/test_damaged_parquet.py

# The tests with the oldest releases that pyproject.toml allows.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) .ci/bounds.py oldest > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt -e '.[test]'
	.venv-oldest/bin/python -m pytest -q -n 2 --dist worksteal

# The newest releases that the tests passed with, as constraints for pip.
newest: test
	$(BIN)/python .ci/bounds.py newest > .ci/newest.txt

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

# All claims at a seed that nobody has tuned on: the number of the week.
claims-fresh: setup
	$(BIN)/python -m claims --all --seed $$(date +%G%V)

# Every claim at ten seeds that nobody has tuned on, and in RESULTS.md at how many it held; hours. Stopped, it goes on where
# it was; a claim whose file has changed since starts anew.
claims-ten: setup
	$(BIN)/python -m claims --all --fresh 10 --seed 2 --write

# Known vulnerabilities of what is installed.
audit: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip_audit --skip-editable

# Wheel and source distribution, built twice: they must be the same, byte for byte.
dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
dist: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	rm -rf dist build/again
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir build/again .
	for file in dist/*; do cmp "$$file" "build/again/$$(basename $$file)" || exit 1; done
	ls -l dist

bench: .venv/.bench
	$(BIN)/python -m benchmarks select usefulness --json out/bench.json

clean:
	rm -rf .venv .venv-oldest out build dist
