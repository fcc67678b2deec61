# make repro · test · style · bench · bench-evaluate; the set-up is done where it is missing.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON ?= $(shell command -v python3.11 || command -v python3)

.PHONY: repro test style bench bench-evaluate llama.cpp setup

repro: setup
	dvc repro

test: setup
	python -m pytest

style: setup
	ruff check . && ruff format --check .

bench: setup bench-evaluate
	python -m bench.prepare
	python -m bench.tokenize
	python -m bench.memory
	python -m bench.train
	python -m bench.train_8b
	python -m bench.export_8b

bench-evaluate: setup
	python -m bench.evaluate

setup: .venv/ready llama.cpp

# LLAMA_BUILD=OFF: the binding loads the libraries that llama.cpp/build.py makes, so nothing is compiled twice.
.venv/ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	CMAKE_ARGS=-DLLAMA_BUILD=OFF python -m pip install --quiet -r requirements-dev.txt
	touch $@

llama.cpp: .venv/ready
	python llama.cpp/build.py
