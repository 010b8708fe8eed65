# Everything a developer types. `make run` and `make test` set up all they need, in this tree and through apt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Packages for tests: a compiler for the images (pinned: they are compared byte for byte), and the VM lab.
APT_TEST := bpftool chromium-headless-shell clang-14 fish gcc groff iproute2 kcat libbpf-dev libc6-dev llvm-14 musl-tools \
	openssh-client opensbi pahole qemu-system-arm qemu-system-misc qemu-system-ppc qemu-system-x86 rpm rsyslog rsyslog-kafka \
	systemd-journal-remote util-linux zsh
PYTEST := $(BIN)/python -m pytest

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 18

run: setup  ## show retransmits and their owners on this machine
	@$(BIN)/python -m tests.demo

test: setup setup-test lint check-generated  ## all tests: unit, kernel, vm
	$(PYTEST) tests

setup: $(VENV)/.done  ## virtual environment in the tree

$(VENV)/.done: pyproject.toml
	@$(PYTHON) -m venv --help >/dev/null && $(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends python3-venv; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

setup-test: ## packages that the tests need, through apt
	@dpkg -s $(APT_TEST) >/dev/null 2>&1 || { $(SUDO) apt-get update -q && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(APT_TEST); }

lint: setup  ## ruff, mypy --strict, pyright, the floor of Python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/vermin --quiet --no-tips --violations -t=3.7- --eval-annotations runtime
	$(BIN)/vermin --quiet --no-tips --violations -t=3.10- --exclude compression --exclude compression.zstd gen

image: setup setup-test  ## compile and link the bytecode images
	$(MAKE) -C bpf_bytecode BUILD=../build PYTHON=../$(BIN)/python
	@$(BIN)/python -m sockpid_gen.image.digests > runtime/sockpid/image/digests.py.new
	@mv runtime/sockpid/image/digests.py.new runtime/sockpid/image/digests.py

check-generated: setup setup-test  ## the committed images are what the sources give
	@rm -rf build/check && mkdir -p build/check
	@$(MAKE) -s -C bpf_bytecode OUT=../build/check BUILD=../build/check PYTHON=../$(BIN)/python
	@for order in bpfel bpfeb; do \
		cmp bpf_bytecode/sockpid.$$order.json build/check/sockpid.$$order.json || exit 1; done
	@$(BIN)/python -m sockpid_gen.image.digests | cmp runtime/sockpid/image/digests.py
	@echo "images are up to date"

FIGURES = $(BIN)/python -m sockpid_gen.table.figures > docs/table.md.new && mv docs/table.md.new docs/table.md

table-figures: setup  ## kernels, layouts and bytes of the published table, into docs/table.md
	$(FIGURES)

docs-cli: setup  ## docs/cli.md, from what --help says
	$(BIN)/python -m tests.docs.reference

surface: setup  ## docs/surface.txt, all that is public, one thing a line
	$(BIN)/python -m tests.surface

SUITES = bullseye bullseye-security bookworm bookworm-security bookworm-backports \
	trixie trixie-security trixie-backports sid experimental
VERIFY = 3

table: setup  ## the published table brought up to date: what SUITES have and it has not is read, VERIFY of it held against DWARF
	@status=0; $(BIN)/sockpid-gen crawl $(SUITES:%=--suite %) --verify $(VERIFY) || status=$$?; \
	[ $$status = 0 ] || [ $$status = 14 ] || exit $$status; \
	$(BIN)/sockpid-gen check && $(FIGURES) && exit $$status

check-table: setup  ## every entry of the published table is valid and satisfies the images
	$(BIN)/sockpid-gen check

accuracy: setup setup-test  ## storms and scenarios against the truth, here and in virtual machines, into docs/accuracy.md; ACCURACY='--list'
	$(BIN)/python -m tests.columns $(ACCURACY)

calibration: setup setup-test  ## offsets found by looking, on every kernel of the lab, against its package
	SOCKPID_CALIBRATE_ALL=1 $(PYTEST) -rP tests/vm/test_loop.py tests/kernel/test_calibrate.py -k calibrat

changes: setup setup-test  ## tables with any one number changed, by each mechanism, in virtual machines; an hour
	SOCKPID_CHANGES_ALL=1 $(PYTEST) -rP tests/vm/test_proof.py -k one_number_changed

airgap: setup setup-test  ## the Debian package and the unit under systemd, the standalone program on a host without Python
	SOCKPID_AIRGAP=1 $(PYTEST) tests/vm/test_systemd.py tests/vm/test_standalone.py tests/vm/test_fulfil.py

collector: setup setup-test  ## the OpenTelemetry collector, built from Debian's sources, takes what sockpid sends
	SOCKPID_COLLECTOR=1 $(PYTEST) tests/docs/test_collector.py

tamper: setup  ## every byte of a bundle flipped in turn, a quarter of an hour
	SOCKPID_TAMPER_ALL=1 $(PYTEST) tests/unit/bundle/test_bundle.py -k flipped_bytes

lab: setup setup-test  ## every kernel of the mirrors by every mechanism, into docs/support-matrix.md; LAB='--arch s390x'
	$(BIN)/python -m tests.vm matrix $(LAB)

LIVING ?= tests/kernel tests/docs
living: setup setup-test  ## tests beside what a host of containers does, with processes of others hidden in /proc; LIVING='tests/docs'
	@$(SUDO) $(BIN)/python -m tests.neighbours unshare --mount sh -c \
		'umount -l /proc; mount -t proc -o hidepid=2 proc /proc; exec "$$@"' living $(PYTEST) $(LIVING)

bench: setup setup-test  ## natively: starting, sending, events a second, a million sockets, into docs/bench.md; BENCH='--part rates'
	@$(SUDO) $(BIN)/python -m tests.bench $(BENCH)

# The distribution's Python, which is what targets have.
bench-streaming:  ## a million events through each output and the graph, into docs/streaming.md
	PYTHONPATH=runtime $(firstword $(wildcard /usr/bin/python3) $(PYTHON)) -m tests.bench.streaming --report docs/streaming.md

SECONDS ?= 600
soak:  ## sockets and processes come and go for SECONDS: memory stays as it is, no PID is wrong; into docs/streaming.md
	PYTHONPATH=runtime $(SUDO) unshare --net --mount sh -c 'ip link set lo up && exec "$$@"' soak \
		$(firstword $(wildcard /usr/bin/python3) $(PYTHON)) -m tests.bench.soak --seconds $(SECONDS) --report docs/streaming.md

bench-vm: setup setup-test  ## beside bcc, bpftrace, libbpf-tools, perf, ply and C, in instructions, into docs/bench.md; BENCH='--only sockpid'
	$(BIN)/python -m tests.bench.vm $(BENCH)

bench-check: setup setup-test  ## costs that are the same on every machine, against tests/bench/costs.json
	@$(BIN)/python -m tests.bench.check --guest

# dwarves (pahole) is for this comparison only.
bench-gen: setup setup-test  ## what reading a kernel's types costs, beside bpftool and pahole, into docs/bench-gen.md; SAMPLE=60, DEBUG=...
	@dpkg -s dwarves >/dev/null 2>&1 || $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy dwarves
	@$(MAKE) -s -C bpf_bytecode OUT=../build/bench BUILD=../build PYTHON=../$(BIN)/python ../build/sockpid.bpfel.o
	@$(BIN)/python -m tests.bench.generator $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(KEEP),--keep $(KEEP)) $(if $(DEBUG),--debug $(DEBUG))

FUZZ_EXAMPLES ?= 20000
fuzz: setup  ## damaged input for every reader, new in each run, FUZZ_EXAMPLES for each
	SOCKPID_TEST_HYPOTHESIS=fuzz SOCKPID_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PYTEST) tests/fuzz

kills: setup  ## a crawl that is killed ten times, at random moments: the tables are those of one that is not
	SOCKPID_TEST_KILLS=10 $(PYTEST) tests/unit/gen/crawl/test_crawl.py -k killed_at_random

DIST ?= dist
dist: setup  ## into dist/: wheel, sdist, bundle, Debian package, manual, and a wheelhouse for machines without network
	rm -rf $(DIST)
	$(BIN)/python -m hatchling build -d $(DIST)
	$(BIN)/sockpid-gen bundle -o $(DIST)/sockpid.pyz
	$(BIN)/python packaging/deb.py $(DIST)/sockpid.pyz $(DIST)
	$(BIN)/python -m sockpid_gen.cli.man $(DIST)
	$(BIN)/pip wheel --quiet --disable-pip-version-check --wheel-dir $(DIST)/wheelhouse "$$(ls $(DIST)/*.whl)[gen,diag]"
	cd $(DIST) && find . -type f ! -name SHA256SUMS | sort | xargs sha256sum > SHA256SUMS

clean:  ## remove what was built, not the package cache
	rm -rf build dist $(VENV)

.PHONY: table help run test setup setup-test lint image check-generated check-table table-figures docs-cli surface accuracy lab bench bench-streaming soak bench-vm bench-check bench-gen fuzz kills dist clean calibration airgap tamper collector living changes
