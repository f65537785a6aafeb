# One command from raw slides to every table. `make` alone says what can be made.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDEXPANSION:
.PRECIOUS: build/%.ipynb build/%.source $(foreach step,tour data preprocessing registration 2d 3d hd transfer tables ablations figures audit cost slides,runs/$(step)/%/run.json)

DATASET ?= toy#       a file in params/; where it has sizes, all of them, or one: toy_hd@8um
DATA    ?=#           folder with a local copy of the raw data; empty: download or generate
MODEL ?= asign#       of `make train` and `make predict`: a file in stlib/models/, with @variant if wanted
PROTOCOL ?= 2d#       of `make train`: 2d, 3d, hd, or transfer
TO      ?=#           of `make train PROTOCOL=transfer`: what is tested, e.g. DATASET=toy_hd@8um+16um TO=toy_hd@16um
SETTING ?= strict#    of `make train`: strict or published
TABLE ?= table1#      of `make list`: a file in tables/
SEED    ?= 0#         of `make train` and `make predict`
SLIDE   ?=#           of `make predict`: the file of a slide; empty: the first one of DATASET
UM_PER_PX ?=#         of `make predict` and `make params`: scale of slides, where files do not tell
KNOWN   ?=#           of `make predict`: a measured section of the same block, whose expression is carried over
SPOTS   ?=#           of `make predict`: what was measured on the slide, to be scored: an .h5ad, or outs of Space Ranger
FOLDER  ?=#           of `make params`: a folder of your sections
NAME    ?=#           of `make params`: what to call the dataset; empty: as the folder
CORES   := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu)
JOBS    ?= $(CORES)
LAUNCH  ?=#           before each notebook, e.g. LAUNCH="srun -n1 -c4 --gpus=1"; several tasks train together
ARGS    ?=#           more words for pytest

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += --jobs=$(JOBS)
endif
MAKEFLAGS += --no-print-directory
THREADS := $(shell echo $$(( $(CORES) / $(JOBS) > 0 ? $(CORES) / $(JOBS) : 1 )))
export JOBS
export OMP_NUM_THREADS ?= $(THREADS)
export JUPYTER_PREFER_ENV_PATH := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

PY := .venv/bin/python
READY := .venv/.ready
# what libraries say about one another and of no concern to a reader: how each warning begins
SAID_BY_OTHERS := ignore:IProgress not found,ignore:\`torch.jit.script\` is deprecated,ignore:The \`srun\` command
UV := $(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)

help:  ## what can be made
	@grep -hE '^[a-z0-9%-]+:.*##' Makefile $(wildcard build/tables.mk) | sed 's/:[^#]*## */\t/' | awk -F'\t' '{printf "  make %-24s %s\n", $$1, $$2}'
	@echo "  with DATASET=toy|her2st|her2st_small ...  DATA=folder  JOBS=2  LAUNCH="

env: $(READY)  ## the environment in .venv, from requirements.lock
$(READY): requirements.lock pyproject.toml
	@echo "environment: .venv from requirements.lock"
	@python3.11 -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV)
	@.venv/bin/uv pip sync --quiet --python $(PY) --compile-bytecode --require-hashes requirements.lock
	@.venv/bin/uv pip install --quiet --python $(PY) --no-deps --editable .
	@$(PY) -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (stlib)" \
	  --env PYTHONWARNINGS "$(SAID_BY_OTHERS)" > /dev/null 2>&1
	@JUPYTER_CONFIG_DIR=.venv/etc/jupyter .venv/bin/jupytext-config set-default-viewer python  # .py opens as a notebook
	@mkdir -p .venv/etc/jupyter/labconfig; echo '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}' \
	  > .venv/etc/jupyter/labconfig/page_config.json
	@touch $@

lock: $(READY)  ## requirements.lock anew from pyproject.toml
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock

lab: $(READY)  ## JupyterLab, where the .py notebooks open as notebooks
	.venv/bin/jupyter lab --config=jupyter_lab_config.py notebooks

# ---- steps: every target is a run.json, written last of all by its notebook -------------------------------------
words = $(subst /, ,$*)
params = params/$(firstword $(subst @, ,$(1))).yaml
# the datasets that DATASET stands for, and how far each is prepared: sections without a stack are not aligned
datasets = $(or $(SIZED_$(DATASET)),$(DATASET))
prepared = $(foreach one,$(datasets),runs/$(if $(findstring @,$(one)),preprocessing,registration)/$(one)/run.json)
# $(1): the notebook's parameters. A run whose fingerprint still holds is only touched.
define execute
	@if $(PY) -m stlib.results $@ $(if $(findstring runs/data/,$@),"$(DATA)"); then touch $@; else $(call papermill,$(1)); fi
endef
define papermill
	$(LAUNCH) $(PY) -m stlib.execute $< $@ $(1)
endef

build/%.ipynb: notebooks/%.py $(READY)
	@mkdir -p $(@D); t=$$(mktemp -u $@.XXXXXX); .venv/bin/jupytext --quiet --set-kernel python3 --to ipynb $< -o - > $$t && mv $$t $@

runs/tour/%/run.json: build/00_tour.ipynb runs/registration/%/run.json
	$(call execute,-r dataset $*)
runs/data/%/run.json: build/01_data.ipynb $$(call params,$$*) $(if $(DATA),build/%.source)
	$(call execute,-r dataset $* -r data "$(DATA)")
build/%.source: FORCE $(READY)  # changes with the files of DATA
	@mkdir -p $(@D); t=$$(mktemp -u $@.XXXXXX); $(PY) -m stlib.fingerprint "$(DATA)" > $$t; cmp -s $$t $@ && rm $$t || mv $$t $@
runs/preprocessing/%/run.json: build/02_preprocessing.ipynb runs/data/%/run.json
	$(call execute,-r dataset $*)
runs/registration/%/run.json: build/03_registration.ipynb runs/preprocessing/%/run.json
	$(call execute,-r dataset $*)

# the stem is <dataset>/<model>/<setting>-s<seed>
train = -r dataset $(word 1,$(words)) -r model $(word 2,$(words)) -r setting $(word 1,$(subst -s, ,$(word 3,$(words)))) -p seed $(word 2,$(subst -s, ,$(word 3,$(words))))
runs/2d/%/run.json: build/04_train_2d.ipynb runs/preprocessing/$$(firstword $$(subst /, ,$$*))/run.json
	$(call execute,$(train))
runs/hd/%/run.json: build/06_train_hd.ipynb runs/preprocessing/$$(firstword $$(subst /, ,$$*))/run.json
	$(call execute,$(train))
# the stem goes on: what is tested, to-<dataset>; several sizes that are trained on stand as <base>@<size>+<size>
joined = $(addprefix $(firstword $(subst @, ,$(1)))$(if $(findstring @,$(1)),@),$(subst +, ,$(word 2,$(subst @, ,$(1)))))
named = $(or $(if $(findstring @,$(1)),$(call joined,$(1))),$(1))
runs/transfer/%/run.json: build/13_transfer.ipynb $$(foreach one,$$(call named,$$(firstword $$(subst /, ,$$*))) $$(subst to-,,$$(word 4,$$(subst /, ,$$*))),runs/preprocessing/$$(one)/run.json)
	$(call execute,$(train) -r to $(subst to-,,$(word 4,$(words))))
runs/3d/%/run.json: build/05_train_3d.ipynb runs/registration/$$(firstword $$(subst /, ,$$*))/run.json
	$(call execute,$(train))

# the stem is <dataset>/<table>/<setting>-s<seed>
runs/tables/%/run.json: build/08_tables.ipynb $$(RUNS_$$(word 2,$$(subst /, ,$$*))_$$(firstword $$(subst /, ,$$*)))
	$(call execute,-r dataset $(word 1,$(words)) -r table $(word 2,$(words)))
runs/figures/%/run.json: build/09_figures.ipynb runs/tables/%/table1/strict-s0/run.json $$(RUNS_pixnet_table1_$$*) $$(RUNS_pixnet_figure4_$$*)
	$(call execute,-r dataset $*)
runs/ablations/%/run.json: build/07_ablations.ipynb $$(foreach table,$$(ABLATIONS),$$(RUNS_$$(table)_$$*) tables/$$(table).yaml)
	$(call execute,-r dataset $*)
runs/cost/%/run.json: build/12_cost.ipynb runs/registration/$$(firstword $$(subst /, ,$$*))/run.json
	$(call execute,-r dataset $(word 1,$(words)) -r table $(word 2,$(words)))
# the stem is <dataset>/<model>/strict-s<seed>; the model is trained once, each slide is predicted anew
runs/slides/%/run.json: build/11_your_slides.ipynb runs/$(if $(KNOWN),registration,preprocessing)/$$(firstword $$(subst /, ,$$*))/run.json FORCE
	@$(call papermill,-r dataset $(word 1,$(words)) -r model $(word 2,$(words)) -p seed $(SEED) -r slide "$(SLIDE)" -r um_per_px "$(UM_PER_PX)" -r known "$(KNOWN)" -r spots "$(SPOTS)")
runs/audit/%/run.json: build/10_audit.ipynb params/%.yaml $(if $(DATA),,runs/data/%/run.json) FORCE
	@$(call papermill,-r dataset $* -r data "$(DATA)" -r missing "$(or $(MISSING),refuse)")

# ---- targets by name --------------------------------------------------------------------------------------------
params: $(READY)  ## look into a folder of yours and write params/NAME.yaml: FOLDER=folder NAME=mine
	@$(PY) -m stlib.survey "$(FOLDER)" "$(NAME)" "$(UM_PER_PX)"
data: $$(foreach one,$$(datasets),runs/data/$$(one)/run.json)  ## fetch, verify and prepare DATASET
prepare: $$(prepared)  ## patches, features, graph and registration of DATASET
train: runs/$(PROTOCOL)/$(DATASET)/$(MODEL)/$(SETTING)-s$(SEED)/$(if $(TO),to-$(TO)/)run.json  ## one run: MODEL=asign PROTOCOL=2d SETTING=strict SEED=0
list: $(READY)  ## the runs behind TABLE for DATASET, a target of make each: for an array of jobs
	@printf '%s\n' $(RUNS_$(TABLE)_$(DATASET))
predict: runs/slides/$(DATASET)/$(MODEL)/strict-s$(SEED)/run.json  ## a slide of yours: SLIDE=file MODEL=asign DATASET=toy UM_PER_PX=0.5
figures reproduce-table1: runs/figures/$(DATASET)/run.json
figures:  ## figures of DATASET, from its Table 1
reproduce: ALL = $(if $(filter file,$(origin DATASET)),tiny tiny_hd,$(DATASET))
reproduce: $(READY)  ## every table and figure of the three papers: of DATASET, or with few epochs on a corner of the toy
	@$(MAKE) $$($(PY) -m stlib.contents $(ALL)) && $(PY) -m stlib.contents
ablations: runs/ablations/$(DATASET)/run.json  ## what each part of ASIGN or MagNet buys, from the runs of their tables
	@cat results/$(DATASET)/ablations.md
audit: DATASET := $(if $(filter file,$(origin DATASET)),her2st,$(DATASET))
audit:  ## constants and flaws of released code, from counts alone (DATASET=her2st)
	@$(MAKE) runs/audit/$(DATASET)/run.json DATASET=$(DATASET)
	@cat "$$(ls -t results/$(DATASET)/audit*.md | head -n 1)"

rendered: $(READY)  ## the executed toy notebooks that people browse
	@$(MAKE) reproduce-table1 runs/tour/toy/run.json runs/audit/toy/run.json DATASET=toy > /dev/null
	@$(MAKE) train DATASET=toy_hd@16um PROTOCOL=hd MODEL=magnet > /dev/null
	@$(MAKE) predict DATASET=toy MODEL=asign SLIDE= KNOWN= SPOTS= > /dev/null
	@$(MAKE) train DATASET=toy_hd@100um TO=toy_hd@16um PROTOCOL=transfer MODEL=pixnet > /dev/null
	@$(PY) -m stlib.rendered

report: $(READY)  ## all tables and figures of DATASET that stand, on one page with every run: reports/DATASET/report.html
	@$(PY) -m stlib.report $(DATASET)
site: $(READY)  ## README, executed notebooks, tables and figures as a static site: site/index.html
	@$(PY) -m stlib.site

test: $(READY)  ## all tests: library, models, notebooks
	@$(MAKE) prepare DATASET=toy
	@$(MAKE) prepare DATASET=toy_hd@16um
	@$(PY) -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)
	@$(MAKE) test-notebooks
# re-run: each notebook once. Not those that read many trainings: tests/test_notebooks.py runs 08 and 09 on made
# predictions, 07 needs 39 trainings; nor 12, which takes minutes and measures time
PAGES := 00_tour 01_data 02_preprocessing 03_registration 04_train_2d-controls 04_train_2d-asign 05_train_3d-controls \
  06_train_hd-magnet 10_audit 11_your_slides
test-notebooks: $(READY)  ## re-run rendered notebooks in a fresh folder and compare
	@out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; export STLIB_OUT="$$out"; \
	$(PY) -m pytest -q -p no:cacheprovider --nbval-lax --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 1200 \
	  -n $(JOBS) --dist loadfile $(PAGES:%=notebooks/rendered/%.ipynb)
bench: $(READY)  ## each stage against a plain reference, with one thread: results/bench.md; ONLY="graph slides"
	@OMP_NUM_THREADS=1 $(PY) -W ignore -m benchmarks $(ONLY)
clean:  ## remove what can be made again (keeps data/)
	rm -rf build runs

FORCE:
.PHONY: FORCE help env lock lab params data prepare train list predict reproduce ablations figures audit rendered report site test test-notebooks bench clean

# ---- tables and their runs, from tables/*.yaml; and what each finished run was made of --------------------------
ifneq ($(filter-out help env lock clean lab,$(MAKECMDGOALS)),)
build/tables.mk: $(wildcard tables/*.yaml params/*.yaml) stlib/tables.py $(READY)
	@mkdir -p build; t=$$(mktemp -u $@.XXXXXX); $(PY) -m stlib.tables > $$t && mv $$t $@
-include build/tables.mk
-include $(wildcard runs/*/*/run.d runs/*/*/*/*/run.d runs/transfer/*/*/*/*/run.d)
endif
