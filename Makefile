# make run and make test need only Python 3.11+ and a package index.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test check format clean

run: .venv/ready          ## set up, then baseline, attempts and verdicts on 1,797 real handwritten digits
	$(BIN)/basekamp run examples/digits.yaml

test: .venv/ready         ## set up, then every test
	$(BIN)/python -m pytest

check: .venv/ready        ## lint, types, and whether the compiled YAML is fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basekamp compile --check

format: .venv/ready       ## format and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:                    ## remove the environment, caches and logs; the store stays
	rm -rf .venv .basekamp .pytest_cache .ruff_cache .mypy_cache .hypothesis

# The exact versions come from constraints.txt.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
