# SPDX-License-Identifier: Apache-2.0
"""A saved model is the same wherever it is loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from modeling_alibi_dinov2 import Dinov2AlibiModel
from tests.comparison import assert_close

REPOSITORY = Path(__file__).parents[2]

SAME_WEIGHTS = "the same operations on the same weights"
OTHER_ORDER = "the keys come in another order in float32 sums, three layers"


# --- saving and loading ---------------------------------------------------------------------------------------------

IN_A_FRESH_PROCESS = """
import sys
import torch
from safetensors.torch import load_file, save_file
import modeling_alibi_dinov2
from transformers import AutoModel

pixels = load_file(sys.argv[1])["pixels"]
for folder in sys.argv[2:]:
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        save_file({"tokens": model(pixels).last_hidden_state.contiguous()}, folder + "/tokens.safetensors")
    model.config.to_json_file(folder + "/loaded.json", use_diff=False)
"""


def test_a_saved_model_is_the_same_in_a_fresh_process(tiny_model, random_pixels, tmp_path):
    pixels = random_pixels(2, 3, 5)
    save_file({"pixels": pixels}, tmp_path / "pixels.safetensors")
    variants = [
        {},
        {"alibi_slopes": "learned", "num_register_tokens": 0, "alibi_metric": "manhattan"},
        {"alibi_slopes": "geometric", "alibi_wrap": False, "alibi_normalize": False, "patch_stride": 7},
        {"position_encoding": "none"},
        {"alibi_slopes": "learned", "alibi_slopes_per": "head"},
        {"alibi_slope": 2.5},
    ]
    folders, expected = [], []
    for index, overrides in enumerate(variants):
        model = tiny_model(seed=index, **overrides)
        folders.append(tmp_path / str(index))
        model.save_pretrained(folders[-1])
        with torch.no_grad():
            expected.append(model(pixels).last_hidden_state)

    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path / "pixels.safetensors"), *map(str, folders)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)

    for folder, overrides, tokens in zip(folders, variants, expected, strict=True):
        loaded = json.loads((folder / "loaded.json").read_text())
        assert {name: loaded[name] for name in overrides} == overrides
        assert loaded["model_type"] == "dinov2_alibi"
        assert_close(load_file(folder / "tokens.safetensors")["tokens"], tokens, 1e-6, "another number of threads")


def test_every_tensor_is_loaded_as_it_was_saved(tiny_model, tmp_path):
    model = tiny_model(alibi_slopes="learned")
    model.save_pretrained(tmp_path)
    loaded, information = Dinov2AlibiModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(information.values())
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor), name


def test_loading_across_devices(tiny_model, random_pixels, tmp_path):
    model, pixels = tiny_model(alibi_slopes="learned"), random_pixels(1, 3, 4)
    model.save_pretrained(tmp_path)
    loaded = Dinov2AlibiModel.from_pretrained(tmp_path, device_map="auto")
    with torch.no_grad():
        actual = loaded(pixels.to(loaded.device)).last_hidden_state
        assert_close(actual, model(pixels).last_hidden_state, 1e-4, "perhaps another device's float32 kernels")


def test_loading_in_half_precision(tiny_model, tmp_path):
    tiny_model(alibi_slopes="learned").save_pretrained(tmp_path)
    model = Dinov2AlibiModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
