# The project's two commands, `make demo` and `make test`, install everything they need; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := .venv-audit
LONG := tests/end_to_end/test_outages.py tests/end_to_end/test_silences.py tests/end_to_end/test_rolling_restarts.py \
	tests/end_to_end/test_backlog.py tests/end_to_end/test_long_outages.py tests/end_to_end/test_crash_matrix.py \
	tests/state_machine tests/conformance/test_joined_sagas.py tests/docs/test_harden.py tests/docs/test_readme_values.py tests/cli/doctor/test_queues.py \
	tests/docs/test_blocks.py::test_readme_container_commands_end_as_stated \
	tests/docs/test_automation.py::test_every_hook_passes_on_all_files \
	tests/examples/test_demos.py::test_demo_ends_as_written_and_stays_readable \
	tests/conformance/test_poison.py::test_poison_does_not_slow_other_sagas_down \
	tests/end_to_end/test_kills_while_gathering.py tests/distribution/test_installs.py \
	tests/distribution/test_new_project_in_containers.py
# Variants of the conformance suite for `make fire`, whose other ones cover both databases and both transports, and the
# commands of the examples' READMEs.
VARIANTS := reads-first or (rabbit-sqlite and not test_a_saga_ends) or (test_shell_commands and examples)
RACES_IN := tests/unit/runtime/test_joins_at_once.py \
	tests/conformance/test_joins.py::test_replicas_run_a_join_once_in_every_round \
	tests/conformance/test_orchestrated_in_parallel.py::test_two_replicas_lose_no_join \
	tests/conformance/test_answers_in_time.py::test_an_answer_and_the_deadline_never_both_win
# Coverage doubles the time of a test, so only the tests of the covered modules run under it.
COVERED := tests/unit/protocol tests/unit/persistence tests/unit/runtime tests/unit/foreign_code
# The folders with the longest tests come first; by itself xdist begins with the files that hold the most tests.
IN_ORDER := --dist loadfile --no-loadscope-reorder $(LONG:%=--deselect %)
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test fire seeds backlog crash races chaos chaos-quick machine planted bench bench-quick bench-instructions bench-console profile screenshots check docs doctor-page format dist sbom audit pins lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: $(VENV)/.installed ## run the order saga in this process: no broker, no server
	@$(BIN)/saga demo

test: $(VENV)/.installed-dev $(VENV)/.installed-system ## run the whole suite against a real RabbitMQ and PostgreSQL
ifdef PYTEST_ARGS
	$(BIN)/pytest $(PYTEST_ARGS)
else
	$(BIN)/pytest -n 3 --dist loadfile $(COVERED) --cov
	$(BIN)/pytest -n 3 --dist loadfile $(LONG:%=--deselect %) tests/unit tests/simulation tests/planted tests/distribution $(COVERED:%=--ignore %)
	$(BIN)/pytest -n 4 $(IN_ORDER) -k 'not ($(VARIANTS))' tests/docs tests/cli tests/conformance tests/examples
	$(BIN)/pytest -n 3 $(IN_ORDER) tests/end_to_end tests/console
endif

fire: $(VENV)/.installed-dev ## run the long tests: servers down, cut off, silent, full; a backlog; crashes at any moment of joins; containers
	$(BIN)/pytest $(LONG)
	$(BIN)/pytest -n 3 --dist loadfile -k '$(VARIANTS)' tests/docs tests/conformance

seeds: $(VENV)/.installed-dev ## run the order saga under a thousand seeds of faults, in a minute
	$(BIN)/pytest -n 0 --saga-seeds 1000 tests/simulation/test_order_seeds.py

backlog: $(VENV)/.installed-dev ## have one process drain 100,000 expired events
	BACKLOG=100000 $(BIN)/pytest -s tests/end_to_end/test_backlog.py tests/end_to_end/test_long_outages.py

crash: $(VENV)/.installed-dev ## kill each service at each failpoint, on each path; writes docs/reports/crash-matrix.md and crash-matrix-shapes.md
	$(BIN)/python -m tests.end_to_end.crash_matrix --shape orders --report docs/reports/crash-matrix
	$(BIN)/python -m tests.end_to_end.crash_matrix --shape joins --shape answers --shape coordinator \
		--report docs/reports/crash-matrix-shapes

races: $(VENV)/.installed-dev ## have two replicas race 10,000 times for a join, a coordinator's replies, and an answer against its deadline
	RACES=10000 $(BIN)/pytest -n 0 $(RACES_IN)

chaos: $(VENV)/.installed-dev ## run all faults at once on 25,000 sagas, duplicates, partitions, recovery, releases; writes docs/reports/chaos.md
	$(BIN)/python -m tests.chaos --report docs/reports

chaos-quick: $(VENV)/.installed-dev ## run all faults at once on 500 sagas, 3,000 deliveries and three releases, in eight minutes
	$(BIN)/pytest tests/chaos

machine: $(VENV)/.installed-dev ## run the state machine 10,000 times, 50 steps each, in an hour or more
	STATE_MACHINE_EXAMPLES=10000 $(BIN)/pytest tests/state_machine

planted: $(VENV)/.installed-dev ## plant bugs, check that the tests detect each, and write docs/reports/planted.md
	@$(BIN)/python -m tests.planted

bench: $(VENV)/.installed-bench ## measure the toolkit beside the usual stack, hand-written limits and DBOS, in ten minutes; writes docs/reports/benchmark.md
	$(BIN)/python -m benchmarks --report docs/reports

bench-quick: $(VENV)/.installed-bench ## measure the same with two loads and one round
	$(BIN)/python -m benchmarks --quick --rounds 1 "usual stack" "by hand" "by hand, SQLModel row" toolkit "toolkit, SQLite" "toolkit, embedded" DBOS

bench-instructions: $(VENV)/.installed-dev ## count the instructions of a saga by callgrind beside the last figures; needs valgrind; writes docs/reports/instructions.json
	$(BIN)/python -m benchmarks.instructions --report docs/reports/instructions.json

bench-console: $(VENV)/.installed-dev ## measure the console with four services and 100,000 sagas; writes docs/reports/console.md
	$(BIN)/python -m benchmarks.console --report docs/reports

profile: $(VENV)/.installed-dev ## show where a message's time goes: the toolkit under a profiler, 100 orders at once
	$(BIN)/python -m benchmarks.profile

screenshots: $(VENV)/.installed-bench $(VENV)/.installed-system ## take the pictures of the console in docs/images/console, from a real run
	$(BIN)/python -m tests.console docs/images/console

check: $(VENV)/.installed-dev ## lint, format, types, the order of the packages, and the lock files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.lock_files

docs: $(VENV)/.installed-dev ## build the documentation's site into dist/site; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

doctor-page: $(VENV)/.installed-dev ## write the checks' part of docs/how-to/doctor.md from their declarations
	$(BIN)/python -m toolkit.doctor.page

format: $(VENV)/.installed-dev ## format the code, and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## resolve the dependencies again (needs uv)
	uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-header --no-annotate \
		pyproject.toml --extra all --group pyproject.toml:build -o requirements.lock
	uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-header --no-annotate \
		pyproject.toml --extra all --group pyproject.toml:build --group pyproject.toml:dev -c requirements.lock -o requirements-dev.lock
	uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-header --no-annotate \
		pyproject.toml --extra all --group pyproject.toml:bench -c requirements-dev.lock -o requirements-bench.lock
	uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--group pyproject.toml:audit -c requirements-dev.lock -o requirements-audit.lock

sbom: $(AUDIT)/.installed ## write a release's contents, from the lock, into dist/saga-toolkit.cdx.json (CycloneDX)
	@mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --mc-type library \
		--output-reproducible -o dist/saga-toolkit.cdx.json

dist: $(AUDIT)/.installed ## build the source distribution, and the wheel from it, into dist/, and check both
	@rm -f dist/*.whl dist/*.tar.gz
	@$(AUDIT)/bin/python -m build --no-isolation --outdir dist . >/dev/null
	@$(AUDIT)/bin/twine check --strict dist/*.tar.gz dist/*.whl
	@$(AUDIT)/bin/check-wheel-contents dist/*.whl

audit: $(AUDIT)/.installed ## look up known vulnerabilities of the locked packages (needs api.osv.dev)
	@$(AUDIT)/bin/python tests/audit.py requirements.lock

pins: ## fetch the base images again, and write their digests into deploy/images.env (needs a registry)
	deploy/pin-images deploy/images.env

clean: ## remove the virtual environment and the demo's files
	rm -rf $(VENV) $(AUDIT) .saga

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d: choose another one, `make PYTHON=python3.13 …`" % v[:2])'
	@echo "setting up $(VENV), once"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/pip
	@echo "installing the toolkit's dependencies, once"
	@$(PIP) --no-deps --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-bench: requirements-bench.lock $(VENV)/.installed-dev
	@echo "installing the benchmark's dependencies, once"
	@$(PIP) --no-deps --require-hashes -r requirements-bench.lock
	@$(BIN)/python -m tests.lock_files
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(BIN)/pip
	@echo "installing the tests' dependencies, once"
	@$(PIP) --no-deps --require-hashes -r requirements-dev.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.installed

$(AUDIT)/.installed: requirements-audit.lock
	@echo "installing the audit's tools, once"
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-audit.lock
	@touch $@

$(VENV)/.installed-system: tests/install-system-packages | $(BIN)/pip
	@tests/install-system-packages
	@touch $@
