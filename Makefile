# Everything that a developer or CI does. `make demo` and `make test` work on a fresh Debian machine with Python 3.11+
# and Rust; they install what they lack.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
SOURCES := pyproject.toml native/Cargo.toml native/Cargo.lock native/hatch_build.py $(wildcard native/src/*.rs native/src/*/*.rs)

.PHONY: demo test check bench format clean

demo: $(STAMP)
	$(PYTHON) examples/demo.py

test: $(STAMP)
	tools/install_test_packages.sh
	PYTHON=$(PYTHON) tools/run_all_tests.sh

check: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports
	cd native && cargo fmt --check && cargo clippy --release --locked --all-targets -- -D warnings
	cd native && cargo test --locked --quiet

bench: $(STAMP)
	tools/install_test_packages.sh bench
	-$(VENV)/bin/pip install --quiet --editable '.[bench]'
	$(PYTHON) -m bench.policy $(wildcard $(IMMURE_CORPUS)/moby/default.json)
	$(PYTHON) -m bench.many
	$(PYTHON) -m bench.files
	$(PYTHON) -m bench.idle
	$(PYTHON) -m bench.ends
	$(PYTHON) -m bench
	$(PYTHON) -m bench.sentry
	$(PYTHON) -m bench.machine
	$(PYTHON) -m bench.density qemu
	$(PYTHON) -m bench.firecracker

format: $(STAMP)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
	cd native && cargo fmt

$(STAMP): $(SOURCES)
	tools/prepare.sh
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) native/target src/immure/_native bench/build
