# `make demo` and `make test` are all that a newcomer needs; both make .venv on their first call.
PYTHON ?= python3.11
PIP = .venv/bin/pip install --quiet --disable-pip-version-check

.PHONY: demo test quick long soak fuzz levels gpu consumers clean

demo: .venv/demo.stamp
	.venv/bin/python -m jobs demo

test: .venv/test.stamp
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	OMP_NUM_THREADS=1 .venv/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The tests that need no Ray, no server and no patience, for the loop in which one develops.
quick: .venv/test.stamp
	OMP_NUM_THREADS=1 .venv/bin/pytest -q -m 'not (ray or server or slow or long)' --numprocesses 2 --dist loadfile

# The tests that take a minute each: a cluster without its head, a node cut off, pictures that kill their replica; the
# largest networks, sections of bench that compile.
long: .venv/test.stamp
	OMP_NUM_THREADS=1 .venv/bin/pytest -m long

# Ten minutes of kills on a real cluster; `make test` has less than one.
soak: .venv/test.stamp
	.venv/bin/python -m tests.support.soak --seconds 600

# Minutes of mutated pictures through the decoder, an hour of mutated files through commands; `make test` runs a few
# thousand of both. FILES=0 leaves the latter out.
FILES ?= 100000
fuzz: .venv/test.stamp
	.venv/bin/python -m tests.support.fuzz --count 200000
	.venv/bin/python -m tests.support.fuzz_files --count $(FILES)

# Boxes at all thresholds of 10,000 random maps against OpenCV's contours; `make test` compares 500.
levels: .venv/test.stamp
	.venv/bin/python -m tests.cam_ops.metrics.test_level_sets --count 10000

# At most eight minutes on a machine with a GPU: the tests that need one, and what `bench gpu` measures, into gpu.jsonl.
gpu: .venv/test.stamp
	.venv/bin/python -m tests.support.gpu

# What is exported, read by programs that are large or pin other libraries; they are in no environment of camray's.
consumers: .venv-consumers/stamp
	folder=$$(mktemp -d) && .venv/bin/python -m tests.support.consumers write $$folder && \
	.venv-consumers/bin/python tests/support/consumers.py read $$folder && rm -r $$folder

.venv-consumers/stamp: .venv/test.stamp
	$(PYTHON) -m venv .venv-consumers
	echo "$(CURDIR)/.venv/lib/$$(ls .venv/lib)/site-packages" > .venv-consumers/lib/$$(ls .venv-consumers/lib)/site-packages/camray.pth
	.venv-consumers/bin/pip install --quiet --disable-pip-version-check ultralytics label-studio-sdk
	touch $@

clean:
	rm -rf .venv .venv-consumers camray-demo

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[demo]'
	touch $@

.venv/test.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[demo,dev,bench]'
	touch $@ .venv/demo.stamp
