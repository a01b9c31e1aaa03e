# Each target makes what it needs. Python 3.10 to 3.13: make PYTHON=python3.12 ... for another than python3.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: demo demo-seg demo-rank bench test lint clean

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "needs Python 3.10 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

# Faster R-CNN on the embedded sample, from ImageNet weights, nothing downloaded at run time: under 10 minutes on 2 cores.
demo: $(VENV)/.installed
	$(BIN)/python tools/train_det.py configs/sample_frcnn_lite0.py

# FCN on the embedded sample, likewise.
demo-seg: $(VENV)/.installed
	$(BIN)/python tools/train_seg.py configs/sample_fcn_lite0.py

# Three backbones under a detector and a segmenter on the embedded sample, over three seeds, and the page that ranks them.
demo-rank: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tools/rank_backbones.py configs/rank/sample.py --jobs 2

# Speed beside what else one might take, as ratios on this machine: half an hour on 2 cores.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/bench.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache
