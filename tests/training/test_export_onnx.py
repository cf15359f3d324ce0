# SPDX-License-Identifier: Apache-2.0
"""An ONNX folder gives PyTorch's features at any size, in ONNX Runtime and in transformers.js."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from alibi_dinov2.io.files import write_json
from modeling_alibi_dinov2 import (
    Dinov2AlibiForSemanticSegmentation,
    Dinov2AlibiImageProcessor,
    Dinov2AlibiModel,
)
from tests.comparison import assert_close
from tests.documentation import save
from training import export_onnx as module

onnxruntime = pytest.importorskip("onnxruntime", reason="running ONNX needs the extra 'onnx'")
pytest.importorskip("onnxscript", reason="exporting to ONNX needs the extra 'onnx'")

OTHER_KERNELS = "other kernels for the same operations, float32"
REPOSITORY = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("transformers_js.mjs")
TRANSFORMERS_JS = "4.3.2"
VARIANTS = module.VARIANTS
SIZES = [(1, 3, 6), (3, 7, 2), (1, 1, 1), (2, 4, 4)]  # batch, rows and columns


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two images of noise, of different shapes; the second one, 70×56, is left as it is by transformers.js."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    paths = [folder / "wide.png", folder / "tall.png"]
    for path, shape in zip(paths, [(61, 100, 3), (70, 56, 3)], strict=True):
        save(random.integers(0, 256, shape, dtype=np.uint8), path)
    return paths


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, tiny_model):
    """A tiny model without registers, and its image processor."""
    return save_model(tiny_model(num_register_tokens=0), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def onnx_folder(model_folder, images):
    """The model as ONNX."""
    module.export_onnx(model_folder, model_folder.parent / "tiny-ONNX", images, "org/tiny")
    return model_folder.parent / "tiny-ONNX"


def save_model(model, folder):
    model.save_pretrained(folder)
    Dinov2AlibiImageProcessor().save_pretrained(folder)
    return folder


def features(folder, file, pixels):
    session = onnxruntime.InferenceSession(folder / "onnx" / file, providers=["CPUExecutionProvider"])
    return session.run(["last_hidden_state", "pooler_output"], {"pixel_values": pixels.numpy()})


def cosine(found, expected):
    return torch.nn.functional.cosine_similarity(torch.as_tensor(found), expected, dim=-1)


@pytest.mark.parametrize("size", SIZES)
def test_every_variant_is_pytorch_at_sizes_it_was_not_traced_at(onnx_folder, model_folder, random_pixels, size):
    pixels = random_pixels(*size)
    with torch.no_grad():
        expected = Dinov2AlibiModel.from_pretrained(model_folder)(pixels)
    tokens, pooled = features(onnx_folder, "model.onnx", pixels)
    assert_close(tokens, expected.last_hidden_state, 2e-5, OTHER_KERNELS)
    assert_close(pooled, expected.pooler_output, 2e-5, OTHER_KERNELS)
    for file, least in (("model_fp16.onnx", 0.999), ("model_quantized.onnx", 0.98)):
        tokens, _ = features(onnx_folder, file, pixels)
        assert tokens.dtype == np.float32
        assert cosine(tokens, expected.last_hidden_state).min() >= least, file


@pytest.mark.parametrize(
    "overrides",
    [
        {"alibi_slopes": "learned", "num_register_tokens": 4},
        {"alibi_slopes": "geometric", "alibi_metric": "manhattan", "alibi_wrap": False, "alibi_normalize": False},
        {"position_encoding": "none", "patch_stride": 7, "image_size": 42},
    ],
)
def test_every_kind_of_bias_is_computed_in_the_graph(tmp_path, tiny_model, random_pixels, images, overrides):
    model = tiny_model(num_hidden_layers=1, **overrides)
    folder = save_model(model, tmp_path / "model")
    module.export_onnx(folder, tmp_path / "model-ONNX", images[:1])
    pixels = random_pixels(2, 3, 5)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
    assert_close(features(tmp_path / "model-ONNX", "model.onnx", pixels)[0], expected, 2e-5, OTHER_KERNELS)
    config = json.loads((tmp_path / "model-ONNX" / "config.json").read_text())
    registers = overrides.get("num_register_tokens", 4)
    assert config["model_type"] == ("dinov2_with_registers" if registers else "dinov2")


def test_the_folder_holds_what_transformers_js_reads_and_nothing_of_this_machine(onnx_folder, model_folder):
    files = {path.relative_to(onnx_folder).as_posix() for path in onnx_folder.rglob("*") if path.is_file()}
    graphs = {f"onnx/{name}.onnx" for name in ("model", "model_fp16", "model_quantized")}
    assert files == graphs | {"README.md", "LICENSE", "config.json", "preprocessor_config.json", "parity.json"}
    config = json.loads((onnx_folder / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("dinov2", ["Dinov2Model"])
    assert config["transformers.js_config"] == {"dtype": "fp32", "device_config": {"wasm": {"dtype": "q8"}}}
    for path in onnx_folder.rglob("*"):
        assert path.is_dir() or str(model_folder.parent).encode() not in path.read_bytes(), path


def test_dimensions_have_names(onnx_folder):
    session = onnxruntime.InferenceSession(onnx_folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    assert pixels.shape == ["batch", 3, "height", "width"]
    assert [output.shape for output in session.get_outputs()] == [["batch", "tokens", 48], ["batch", 48]]


def test_figures_in_the_card_are_those_that_were_measured(onnx_folder, model_folder, images):
    record = json.loads((onnx_folder / "parity.json").read_text())
    model = Dinov2AlibiModel.from_pretrained(model_folder)
    processor = Dinov2AlibiImageProcessor.from_pretrained(model_folder)
    assert list(record["images"]) == ["wide.png", "tall.png"]
    sizes = [(224, 224), (56, 56), (322, 56)]
    card = ModelCard.load(onnx_folder / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("transformers.js", "org/tiny")
    for entry in record["variants"]:
        assert list(entry["cosine"]) == [f"{height}×{width}" for height, width in sizes]
        assert entry["bytes"] == (onnx_folder / "onnx" / entry["file"]).stat().st_size
        (row,) = [line for line in card.text.splitlines() if line.startswith(f"| {entry['file']} ")]
        for height, width in sizes:
            measured = []
            for path in images:
                size = {"height": height, "width": width}
                pixels = processor(Image.open(path), size=size, do_center_crop=False, return_tensors="pt").pixel_values
                with torch.no_grad():
                    expected = model(pixels).last_hidden_state
                measured.append(cosine(features(onnx_folder, entry["file"], pixels)[0], expected).ravel())
            least, mean = torch.cat(measured).min().item(), torch.cat(measured).mean().item()
            figures = entry["cosine"][f"{height}×{width}"]
            # Sums in another order; the card shows six decimals.
            assert figures == pytest.approx({"least": least, "mean": mean}, abs=1e-6)
            assert f"{figures['least']:.6f} ({figures['mean']:.6f})" in row


def with_least_cosine(monkeypatch, dtype, least):
    variants = [variant._replace(least_cosine=least) if variant.dtype == dtype else variant for variant in VARIANTS]
    monkeypatch.setattr(module, "VARIANTS", tuple(variants))


def test_eight_bits_that_are_too_coarse_are_left_out(monkeypatch, tmp_path, model_folder, images):
    with_least_cosine(monkeypatch, "q8", 1.1)
    record = module.export_onnx(model_folder, tmp_path / "tiny-ONNX", images[:1])
    assert [entry["dtype"] for entry in record["variants"]] == ["fp32", "fp16"]
    assert [entry["dtype"] for entry in record["left_out"]] == ["q8"]
    assert not (tmp_path / "tiny-ONNX" / "onnx" / "model_quantized.onnx").exists()
    config = json.loads((tmp_path / "tiny-ONNX" / "config.json").read_text())
    assert config["transformers.js_config"] == {"dtype": "fp32"}
    card = (tmp_path / "tiny-ONNX" / "README.md").read_text()
    assert "model_quantized.onnx is not here" in card
    assert '{ dtype: "fp16" }' in card


def test_a_wrong_graph_is_not_written(monkeypatch, tmp_path, model_folder, images):
    with_least_cosine(monkeypatch, "fp32", 1.1)
    with pytest.raises(ValueError, match=r"model\.onnx differs from PyTorch"):
        module.export_onnx(model_folder, tmp_path / "tiny-ONNX", images[:1])
    assert not (tmp_path / "tiny-ONNX").exists()


def test_what_cannot_be_exported_is_refused(tmp_path, tiny_model, model_folder, onnx_folder, images):
    before = (onnx_folder / "README.md").read_bytes()
    with pytest.raises(FileExistsError, match="not empty"):
        module.export_onnx(model_folder, onnx_folder, images)
    assert (onnx_folder / "README.md").read_bytes() == before
    head = save_model(tiny_model(Dinov2AlibiForSemanticSegmentation, num_labels=2), tmp_path / "head")
    with pytest.raises(ValueError, match="holds a Dinov2AlibiForSemanticSegmentation; only models without a head"):
        module.export_onnx(head, tmp_path / "output", images)
    jitter = Path(shutil.copytree(model_folder, tmp_path / "jitter"))
    config = json.loads((jitter / "config.json").read_text())
    write_json(jitter / "config.json", config | {"alibi_jitter": 0.1})
    with pytest.raises(ValueError, match=r"`alibi_jitter` is 0\.1"):
        module.export_onnx(jitter, tmp_path / "output", images)
    assert not (tmp_path / "output").exists()


# --- transformers.js ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers_js(request):
    """The library as Node finds it: the page's own if it is installed, otherwise fetched once."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("Node.js is not installed")
    entry = Path("node_modules", "@huggingface", "transformers", "dist", "transformers.node.mjs")
    if (REPOSITORY / "web" / entry).is_file():
        return REPOSITORY / "web" / entry
    packages = Path(request.config.cache.mkdir("transformers-js"))
    if not (packages / entry).is_file():
        # Its scripts would fetch CUDA; the CPU's runtime comes with the package.
        command = ["npm", "install", "--ignore-scripts", "--no-save", "--prefix", packages]
        result = subprocess.run(
            [*command, f"@huggingface/transformers@{TRANSFORMERS_JS}"], capture_output=True, text=True, check=False
        )
        if result.returncode:
            pytest.skip(f"transformers.js could not be installed: {result.stderr.strip()[-300:]}")
    return packages / entry


def in_node(library, folder, image, dtype):
    result = subprocess.run(
        ["node", SCRIPT, library, folder, image, dtype], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(("dtype", "file"), [("fp32", "model.onnx"), ("q8", "model_quantized.onnx")])
def test_transformers_js_loads_the_folder_and_gives_the_same_features(
    transformers_js, onnx_folder, model_folder, images, dtype, file
):
    found = in_node(transformers_js, onnx_folder, images[1], dtype)
    assert found["modelClass"] == "Dinov2Model"
    assert (found["pixels"], found["tokens"]) == ([1, 3, 70, 56], [1, 1 + 5 * 4, 48])
    processor = Dinov2AlibiImageProcessor.from_pretrained(model_folder)
    image = Image.open(images[1])
    pixels = processor(image, do_resize=False, do_center_crop=False, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = Dinov2AlibiModel.from_pretrained(model_folder)(pixels).last_hidden_state
    tokens = np.array(found["features"], np.float32).reshape(expected.shape)
    if dtype == "fp32":
        assert_close(tokens, expected, 5e-5, f"{OTHER_KERNELS}, and pixels normalised in another order")
    assert cosine(tokens, expected).min() >= {"fp32": 0.99999, "q8": 0.98}[dtype]
    assert found["pipeline"] == found["features"]


def test_sides_follow_the_image_in_transformers_js(transformers_js, onnx_folder, images):
    found = in_node(transformers_js, onnx_folder, images[0], "fp32")
    # 61×100 pixels: the shorter side becomes 56, the other one 91.8, that is, 6 whole patches.
    assert found["pixels"] == [1, 3, 56, 84]
    assert found["tokens"] == [1, 1 + 4 * 6, 48]
