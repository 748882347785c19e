# Needs python3 (3.11 to 3.13), make and a package index. Everything else comes from uv.lock into .venv, by itself.

.DEFAULT_GOAL := help
SHELL := /bin/bash
# What one program has compiled, the next hundred do not compile again, wherever that is off.
unexport PYTHONDONTWRITEBYTECODE

UV_VERSION := 0.13.8
# uv lives apart from .venv, which holds what the lock names and nothing else.
UV_HOME := .cache/uv-$(UV_VERSION)
# Whatever virtual environment is active, ours is .venv.
UV := env -u VIRTUAL_ENV -u UV_PYTHON UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON_DOWNLOADS=never $(UV_HOME)/bin/uv
RUN := .venv/bin/python -m
PYTEST := TMPDIR=$$(tests/services/temporary-folder) $(RUN) pytest
# It speaks of its successor in every run. When Material for MkDocs ends, in May 2027, we go there.
DOCS := NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs
# Each pytest process starts the services it needs; tests of one xdist_group stay together. Four for two cores: the tests
# wait more than they work.
PARALLEL ?= -n 4 --dist loadgroup
# What fails runs once more, alone; what passes then is listed as unsteady.
AGAIN := -p tests.unsteady
# More options for pytest: make unit ARGS="-k stop -x"
ARGS ?=
# Prints the first Python that will do, of those given and the usual names.
SUITABLE := import ensurepip, sys, venv; assert (3, 11) <= sys.version_info[:2] < (3, 14); print(sys.executable)
find_python = for python in $(1) python3 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(SUITABLE)' 2>/dev/null && exit 0; done; \
	echo "no suitable Python: install Python 3.11, 3.12 or 3.13 with its venv module (Debian: apt-get install python3-venv)" >&2; exit 1
CODE := relay workers scheduler $(wildcard benchmarks) tests docs/site_hook.py deploy/image

.PHONY: help
help: ## show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.synced ## run the whole system on this machine for a moment, and judge what it delivered
	.venv/bin/relay demo $(ARGS)

.PHONY: test
test: .venv/.synced services-rabbitmq services-redis services-kafka services-prometheus ## run every test; what fails runs once more, alone
	$(PYTEST) $(AGAIN) $(PARALLEL) $(ARGS) tests

.PHONY: test-all
test-all: .venv/.synced services-rabbitmq services-redis services-kafka services-prometheus ## run every test and short kill loops on every PostgreSQL that can be had: 14 to 18; then lowest and newest
	versions=$$(tests/services/install-postgres) && TEST_POSTGRES="$$versions" $(PYTEST) $(AGAIN) $(PARALLEL) $(ARGS) tests
	for version in $$(tests/services/install-postgres); do \
	  $(RUN) tests.faults.kill_loop --seconds 30 --postgres $$version && \
	  $(RUN) tests.faults.jobs_kill_loop --seconds 30 --postgres $$version && \
	  $(RUN) tests.faults.streams_kill_loop --seconds 30 --postgres $$version || exit 1; done
	$(MAKE) lowest newest

# In an environment of its own, .cache/versions/NAME: what needs no server, and the suites of brokers and backends, jobs and
# publishers with their drivers.
.PHONY: lowest newest
lowest: .venv/.synced services-rabbitmq services-redis services-kafka ## run units and contracts with the lowest versions that pyproject.toml allows
newest: .venv/.synced services-rabbitmq services-redis services-kafka ## the same with the newest versions of everything
lowest newest:
	python=$$(tests/services/install-versions $@ .venv/bin/python) && export TMPDIR=$$(tests/services/temporary-folder) && \
	  "$$python" -m pytest $(ARGS) -m "not service" $(UNITS) && \
	  "$$python" -m pytest $(AGAIN) $(PARALLEL) $(ARGS) -m service $(addprefix tests/,backends broker jobs outbox process wire)

.PHONY: check check-types check-words
check: .venv/.synced check-words check-types ## formatting, lint, spelling and words, types, import contracts
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	.venv/bin/lint-imports
check-types: .venv/.synced ## types, strictly
	$(RUN) mypy $(CODE)
check-words: .venv/.synced ## spelling, and the words of CONTRIBUTING.md
	.venv/bin/typos
	$(RUN) tests.words

.PHONY: fmt
fmt: .venv/.synced ## format the code and fix what lint can fix
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

.PHONY: bench
bench: .venv/.synced ## measure, and write benchmarks/results.md
	$(RUN) benchmarks $(ARGS)
.PHONY: speed
speed: .venv/.synced ## write README's tables of speed, from benchmarks/results.md
	$(RUN) benchmarks.speed

UNITS := $(addprefix tests/,backends broker database drains inbox local operations pipelines process scheduler wire workers web test_*.py)
.PHONY: unit backends sql faults cli e2e packaging chart observe
unit: .venv/.synced ## run the tests that need no server
	$(PYTEST) $(ARGS) -m "not service" $(UNITS)
backends: .venv/.synced services-rabbitmq services-redis services-kafka ## run the suites that every sink and every source passes: tests/backends/NAME for one
	$(PYTEST) $(ARGS) tests/backends
sql: .venv/.synced ## run the tests of the schema; on one PostgreSQL: TEST_POSTGRES=15 make sql
	$(PYTEST) $(ARGS) tests/sql
faults: .venv/.synced services-rabbitmq services-kafka ## run the tests that kill schedulers, workers and servers under load
	$(PYTEST) $(ARGS) tests/faults
cli: .venv/.synced ## run the tests of the commands
	$(PYTEST) $(ARGS) tests/cli
e2e: .venv/.synced services-rabbitmq ## run the trips through each system, whole
	$(PYTEST) $(ARGS) tests/e2e
observe: .venv/.synced services-prometheus ## run the tests of alerts and dashboard, on a real Prometheus
	$(PYTEST) $(ARGS) tests/observe
packaging: .venv/.synced ## build the wheel and try it in an environment of its own
	$(PYTEST) $(ARGS) tests/packaging
chart: .venv/.synced ## lint the chart and install it with the real Helm engine, on a server that runs nothing
	$(PYTEST) $(ARGS) tests/chart

# Of each fuzzer: make fuzz SECONDS=60
SECONDS ?= 300
.PHONY: fuzz
fuzz: .venv/.synced ## run each fuzzer for five minutes; what fails is repeated by the command that it prints
	FUZZ_SECONDS=$(SECONDS) $(PYTEST) $(ARGS) -s tests/fuzz

.PHONY: image
image: ## build the container image; more options: make image ARGS="--build-arg MORE_EXTRAS=--extra=parquet"
	version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' relay/__init__.py) && \
	docker build --tag tide-relay:$$version --build-arg VERSION=$$version \
	  --build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$(date --utc +%Y-%m-%dT%H:%M:%SZ) $(ARGS) .

.PHONY: wheel release-check
wheel: .venv/.synced ## build the wheel and the source archive into build/wheel
	rm -rf build/wheel
	$(RUN) hatchling build --directory build/wheel
release-check: ## whether package, chart and changelog say this version: make release-check VERSION=1.2.3
	@test -n "$(VERSION)" || { echo "give the version: make release-check VERSION=1.2.3" >&2; exit 2; }
	@grep -qx '__version__ = "$(VERSION)"' relay/__init__.py || { echo "relay/__init__.py: __version__ is not $(VERSION)" >&2; exit 1; }
	@grep -qx 'version: $(VERSION)' deploy/helm/Chart.yaml || { echo "deploy/helm/Chart.yaml: version is not $(VERSION)" >&2; exit 1; }
	@grep -qx 'appVersion: "$(VERSION)"' deploy/helm/Chart.yaml || { echo "deploy/helm/Chart.yaml: appVersion is not $(VERSION)" >&2; exit 1; }
	@grep -q '^## $(VERSION)\b' CHANGELOG.md || { echo "CHANGELOG.md has no section $(VERSION)" >&2; exit 1; }
	@echo "package, chart and changelog say $(VERSION)"

.PHONY: docs docs-serve
docs: .venv/.synced ## build the site of the documentation into build/site; a broken link is an error
	$(DOCS) build --strict $(ARGS)
docs-serve: .venv/.synced ## show the site at http://127.0.0.1:8000, and again after each change
	$(DOCS) serve --livereload $(ARGS)

.PHONY: kill-loop
kill-loop: .venv/.synced ## kill schedulers and workers under load: three minutes each with messages, with jobs, with stream tables
	$(RUN) tests.faults.kill_loop $(ARGS)
	$(RUN) tests.faults.jobs_kill_loop $(ARGS)
	$(RUN) tests.faults.streams_kill_loop $(ARGS)

.PHONY: exactly-once
exactly-once: .venv/.synced services-kafka ## kill workers under every backend that promises exactly once, and count
	$(RUN) tests.faults.exactly_once $(ARGS)

.PHONY: services-rabbitmq
services-rabbitmq: ## install Debian's RabbitMQ if it is missing and we may
	@tests/services/install-rabbitmq

.PHONY: services-kafka
services-kafka: ## fetch Apache Kafka if it is missing and Java and Maven are there
	@tests/services/install-kafka

.PHONY: services-redis
services-redis: $(UV_HOME)/bin/uv ## unpack current servers of Redis and Valkey if they are missing, for their tests
	@tests/services/install-redis $(UV_HOME)/bin/python

.PHONY: services-prometheus
services-prometheus: ## unpack Debian's Prometheus if it is missing, for the tests of alerts and dashboard
	@tests/observe/install-prometheus

.PHONY: setup
setup: .venv/.synced ## make .venv from uv.lock

.PHONY: lock
lock: $(UV_HOME)/bin/uv ## renew uv.lock after a change of the dependencies
	$(UV) lock $(ARGS)

# A .venv that works is kept, whichever of our Python versions it has.
.venv/.synced: uv.lock pyproject.toml | $(UV_HOME)/bin/uv
	@python=$$($(call find_python,.venv/bin/python)) && $(UV) sync --quiet --frozen --extra dev --python "$$python"
	@touch $@

# Built beside its place, so that an interrupted installation is never taken for a whole one.
$(UV_HOME)/bin/uv:
	@python=$$($(call find_python)) && echo "installing uv and the packages of uv.lock into .venv" && \
	  "$$python" -m venv --clear $(UV_HOME).new && \
	  $(UV_HOME).new/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) && \
	  rm -rf $(UV_HOME) && mv $(UV_HOME).new $(UV_HOME)
