# `make demo` and `make test` set up what they need in .venv; nothing else is required but Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test hostile coverage test-matrix lint format docs bench memorization clean

demo: $(VENV)/.demo
	$(BIN)/dedupkit demo --out demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Hostile inputs of every kind against their oracles; a million take less than an hour on two cores. COUNT=100000 tries
# fewer, SEED=1 others. docs/reliability.md says how each figure is counted.
COUNT ?= 1000000
SEED ?= 0
hostile: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m hostile --count $(COUNT) --seed $(SEED)

# The tests with the share of lines and branches that they run; half as long again as `make test`.
coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered \
		--deselect tests/test_bad_input.py::test_a_file_that_cannot_be_written_in_full # needs the processes as they are

# The tests on each Python with the oldest and the newest dependencies: an hour and some 20 GB of downloads.
test-matrix:
	tests/matrix.sh

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site of the documentation, in build/site.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/hashing.py
	$(BIN)/python benchmarks/hamming.py
	$(BIN)/python benchmarks/deciding.py
	$(BIN)/python benchmarks/copies.py

# What a small diffusion model copies of a training set before and after cleaning: under an hour on two cores. PHOTOS=DIR
# names a folder of photos with captions (benchmarks/memorization/README.md); without it, made pictures take their place,
# in a folder of their own.
PHOTOS ?=
memorization: $(VENV)/.dev
	PYTHONPATH=benchmarks $(BIN)/python -m memorization $(if $(PHOTOS),--photos '$(PHOTOS)') \
		--out build/memorization$(if $(PHOTOS),,-made)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "dedupkit needs Python >= 3.11; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip -c constraints.txt

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -e '.[demo]' -c constraints.txt
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -e '.[dev]' -c constraints.txt
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) demo build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
