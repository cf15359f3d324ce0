# SPDX-License-Identifier: Apache-2.0
"""A folder exported with the newest supported Transformers means the same to the oldest one, and back."""

import os
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor, Dinov2AlibiModel
from tests.comparison import assert_close
from training.export import export

REPOSITORY = Path(__file__).parents[1]
OLDEST = REPOSITORY / ".venv-oldest" / "bin" / "python"

pytestmark = pytest.mark.skipif(not OLDEST.exists(), reason="no environment of the oldest release: make test-oldest")

SCRIPT = """
import sys
import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModel

folder, image, output, again = sys.argv[1:]
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
pixels = processor(np.load(image), return_tensors="pt")["pixel_values"]
with torch.no_grad():
    np.savez(output, pixels=pixels.numpy(), tokens=model(pixels).last_hidden_state.numpy())
model.save_pretrained(again)
"""


def test_the_other_environment_holds_the_oldest_release():
    """A test that installs what is pinned would let the whole run be one of the newest release."""
    command = [OLDEST, "-c", "import transformers; print(transformers.__version__)"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    requirements = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    (supported,) = (line for line in requirements if line.startswith("transformers>="))
    assert supported.startswith(f"transformers>={found.rpartition('.')[0]},"), f"{found} for {supported}"


@pytest.mark.parametrize("bias", [{}, {"alibi_slopes": "learned", "num_register_tokens": 0}])
def test_both_ends_of_the_range_agree(tmp_path, tiny_model, bias):
    model = tiny_model(**bias)
    model.save_pretrained(tmp_path / "student")
    processor = Dinov2AlibiImageProcessor(crop_size={"height": 70, "width": 98})
    processor.save_pretrained(tmp_path / "student")
    export(tmp_path / "student", tmp_path / "hub", "a tiny teacher", "no images")
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)

    names = ("hub", "image.npy", "oldest.npz", "again")
    result = subprocess.run(
        [OLDEST, "-c", SCRIPT, *(str(tmp_path / name) for name in names)],
        cwd=tmp_path,
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr

    pixels = processor(image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        tokens = model(pixels).last_hidden_state
    found = np.load(tmp_path / "oldest.npz")
    assert_close(found["pixels"], pixels, 0, "the same integer arithmetic")
    assert_close(found["tokens"], tokens, 1e-6, "the same operations; another process may split sums otherwise")
    again = Dinov2AlibiModel.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
