# make demo   upscale examples/images/ and fine-tune a detector of blood cells; web pages in demo-output/
# make test   lint, types and tests, with coverage
# make docs   the documentation, into docs/_build/html
#
# PYTHON       the interpreter that builds the environment (3.10 or newer)
# TORCH_INDEX  a package index to prefer for torch; on Linux without a GPU, PyTorch's CPU index
# WORKERS      how many test processes run at once

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 2
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml packages/convattn-yolo/pyproject.toml $(wildcard src/convattn/ops/cpu/kernels/*)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo demo-upscale demo-detect test docs clean
.DELETE_ON_ERROR:

demo: demo-upscale demo-detect

demo-upscale: $(VENV)/.package
	$(BIN)/convattn upscale examples/images --output demo-output/images --scale 4 --existing overwrite
	$(BIN)/python examples/before_after.py examples/images demo-output/images demo-output/images.html

demo-detect: $(VENV)/.detection
	$(BIN)/python packages/convattn-yolo/examples/detect.py demo-output

test: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --cov

docs: $(VENV)/.documentation
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html
	$(BIN)/python tools/check_links.py docs/_build/html README.md README.zh-CN.md

clean:
	rm -rf $(VENV) demo-output

# torch goes first and alone: it alone has several builds, and nothing after it may replace it.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	touch $@

$(VENV)/.package: $(VENV)/.torch $(SOURCES)
	$(PIP_INSTALL) --editable .
	touch $@

$(VENV)/.detection: $(VENV)/.package
	$(PIP_INSTALL) --editable . --editable packages/convattn-yolo
	touch $@

$(VENV)/.development: $(VENV)/.torch $(SOURCES)
	$(PIP_INSTALL) --editable ".[train,video,export,spandrel,ray,serve,dev]" --editable packages/convattn-yolo
	touch $@ $(VENV)/.package

$(VENV)/.documentation: $(VENV)/.torch $(SOURCES)
	$(PIP_INSTALL) --editable ".[train,docs]"
	touch $@ $(VENV)/.package
