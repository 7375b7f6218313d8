# make run and make test need only Python 3.11+ and a package index.
PYTHON ?= python3
BIN := .venv/bin

IMAGE := $(shell sed -n 's/^IMAGE = "\(.*\)"/\1/p' components/__init__.py)

.PHONY: run test fuzz check format clean sbom image kind-down deploy

run: .venv/ready          ## set up, then baseline, attempts and verdicts on 1,797 real handwritten digits
	$(BIN)/basekamp run examples/digits.yaml

test: .venv/ready         ## set up, then every test
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

fuzz: .venv/ready         ## ten minutes of fuzzing; what it finds becomes a file in tests/fuzz/crashes that make test replays
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz 600

check: .venv/ready        ## lint, types, and whether the compiled YAML is fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basekamp compile --check

format: .venv/ready       ## format and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:                    ## remove the environment, caches and logs; the store stays
	rm -rf .venv .airflow .checkov sbom .basekamp .pytest_cache .ruff_cache .mypy_cache .hypothesis

sbom: .venv/ready         ## list every package in the image, and its licence
	$(BIN)/python .ci/sbom.py sbom

image:                    ## build the image that every step runs in
	docker build --build-arg REVISION=$$(git rev-parse HEAD) --tag $(IMAGE) .

kind-down:                ## remove it and all that was stored in it
	kind delete cluster --name basekamp

deploy: .venv/ready image   ## a cluster here with pretended GPUs, Kubeflow Pipelines on MinIO, the pipelines uploaded
	kind get clusters 2>/dev/null | grep -qx basekamp \
	  || kind create cluster --config manifests/kind-cluster.yaml --wait 3m
	manifests/scripts/fake-gpus.sh
	kind load docker-image --name basekamp $(IMAGE)
	manifests/scripts/install.sh kind
	manifests/scripts/upload.sh http://localhost:8080

# The exact versions come from constraints.txt.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
