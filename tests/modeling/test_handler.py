# SPDX-License-Identifier: Apache-2.0
"""An Inference Endpoint answers requests about a Hub folder, which is all that it has."""

import base64
import io
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image

from alibi_dinov2.io.images import read_image
from alibi_dinov2.pictures.feature_colours import feature_colours
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor, Dinov2AlibiModel
from modeling_alibi_dinov2 import handler as module
from modeling_alibi_dinov2.handler import EndpointHandler
from tests.stranger import run_as_stranger
from training.export import export

# As the Hub's toolkit does: the file is imported by its path.
ENDPOINT = """
import json
spec = importlib.util.spec_from_file_location("handler", sys.argv[1] + "/handler.py")
handler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handler)
print(json.dumps(handler.EndpointHandler(sys.argv[1])(json.load(sys.stdin))))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """A Hub folder of a tiny model."""
    student = tmp_path_factory.mktemp("student")
    tiny_model().save_pretrained(student)
    Dinov2AlibiImageProcessor().save_pretrained(student)
    export(student, student / "hub", "a tiny teacher", "noise")
    return student / "hub"


@pytest.fixture(scope="module")
def handler(folder):
    return EndpointHandler(str(folder))


@pytest.fixture(scope="module")
def image():
    """Two materials side by side, 60 rows and 90 columns."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 60, (60, 90, 3), dtype=np.uint8)
    pixels[:, 45:] += 180
    return Image.fromarray(pixels)


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def array_of(text: str) -> np.ndarray:
    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)


def image_of(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def expected_features(folder, image, size) -> np.ndarray:
    processor = Dinov2AlibiImageProcessor.from_pretrained(folder)
    model = Dinov2AlibiModel.from_pretrained(folder)
    inputs = processor(image, size={"shortest_edge": size}, do_center_crop=False, return_tensors="pt")
    rows, columns = (side // 14 for side in inputs["pixel_values"].shape[-2:])
    with torch.no_grad():
        tokens = model(**inputs).last_hidden_state
    return tokens[0, model.config.num_prefix_tokens :].reshape(rows, columns, -1).numpy()


def test_features_are_those_of_the_model(handler, folder, image):
    answer = handler({"inputs": image, "parameters": {"size": 112}})
    assert answer["grid"] == [8, 12]
    np.testing.assert_array_equal(array_of(answer["features"]), expected_features(folder, image, 112))


def test_an_image_comes_as_an_image_as_bytes_or_as_base64(handler, image):
    content = file_of(image)
    text = base64.b64encode(content).decode()
    answers = [
        handler({"inputs": inputs, "parameters": {"size": 56}})
        for inputs in (image, content, text, f"data:image/png;base64,{text}")
    ]
    assert all(answer == answers[0] for answer in answers)


def test_an_endpoint_answers_in_json_without_this_repository(folder, handler, image, tmp_path):
    request = {"inputs": base64.b64encode(file_of(image)).decode(), "parameters": {"task": "pca", "size": 56}}
    answer = json.loads(run_as_stranger(ENDPOINT, tmp_path, folder, given=json.dumps(request)))
    assert answer["grid"] == [4, 6]
    found, expected = (np.asarray(image_of(one["image"])).astype(int) for one in (answer, handler(request)))
    assert np.abs(found - expected).max() <= 1  # kernels round by where in memory the weights lie


def test_principal_components_are_those_of_the_project(handler, folder, image):
    answer = handler({"inputs": image, "parameters": {"task": "pca", "size": 224}})
    picture = image_of(answer["image"])
    assert picture.size == (336, 224)
    rows, columns = answer["grid"]
    found = np.asarray(picture).reshape(rows, 14, columns, 14, 3)[:, 7, :, 7]
    ((expected,),) = feature_colours([[expected_features(folder, image, 224)]])
    for channel in range(3):  # each component may have either sign
        wanted = expected[..., channel].astype(int)
        difference = min(np.abs(found[..., channel] - one).max() for one in (wanted, 255 - wanted))
        assert difference <= 2, channel  # rounding, once in each of two libraries' decompositions


def test_an_image_without_content_is_grey(handler):
    colours = module.component_colours(np.ones((3, 4, 8), np.float32))
    assert colours.shape == (3, 4, 3)
    assert set(colours.ravel()) == {128}
    answer = handler({"inputs": Image.new("L", (14, 14)), "parameters": {"task": "pca", "size": 14}})
    assert answer["grid"] == [1, 1]


def test_similarity_is_the_cosine_to_the_patch_at_the_point(handler, folder, image):
    answer = handler({"inputs": image, "parameters": {"task": "similarity", "size": 112, "point": [59, 80]}})
    features = torch.from_numpy(expected_features(folder, image, 112))
    reference = features[59 * 8 // 60, 80 * 12 // 90]
    expected = torch.nn.functional.cosine_similarity(features, reference.expand_as(features), dim=-1)
    np.testing.assert_allclose(answer["similarity"], expected, atol=1e-4)  # four decimals
    assert answer["similarity"][7][10] == 1
    grey = np.asarray(image_of(answer["image"]))[::14, ::14]
    np.testing.assert_allclose(grey / 127.5 - 1, expected, atol=0.005)


@pytest.mark.parametrize("dtype", ["12 bits", "16 bits", "float32"])
def test_images_of_more_than_8_bits_keep_their_contrast(handler, dtype):
    noise = np.random.default_rng(1).normal(size=(70, 84))
    values = {
        "12 bits": np.clip(1000 + 250 * noise, 0, 4095).astype(np.uint16),
        "16 bits": (31_000 + 250 * noise).astype(np.uint16),
        "float32": (noise / 100).astype(np.float32),
    }[dtype]
    content = file_of(Image.fromarray(values), "TIFF")
    grey = np.asarray(read_image(content))
    assert len(np.unique(grey)) > 200
    found, same = (
        handler({"inputs": inputs, "parameters": {"size": 56}}) for inputs in (content, Image.fromarray(grey))
    )
    assert found == same


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "must have 'inputs'"),
        ({"inputs": "!", "parameters": {}}, "not base64"),
        ({"inputs": b"no image"}, "no image that Pillow reads"),
        ({"inputs": 7}, "is a int"),
        ({"task": "pca"}, "must have 'inputs'"),
        ({"parameters": {"task": "segment"}}, "one of features, pca, similarity"),
        ({"parameters": {"sizes": 224}}, "sizes are not known"),
        ({"parameters": {"size": "224"}}, "`size` is '224'"),
        ({"parameters": {"size": 0}}, "`size` is 0"),
        ({"parameters": {"size": 4000}}, "Choose a smaller `size`"),
        ({"parameters": {"task": "similarity"}}, "`point` is None"),
        ({"parameters": {"point": [1, 2]}}, "it alone, takes a point"),
        ({"parameters": {"task": "similarity", "point": [1]}}, r"must be \[row, column\]"),
        ({"parameters": {"task": "similarity", "point": [60, 0]}}, "outside of the image of 60 rows"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(handler, image, request_, message):
    if "parameters" in request_ and "inputs" not in request_:
        request_ = {"inputs": image} | request_
    with pytest.raises(ValueError, match=message):
        handler(request_)


def test_values_that_are_not_finite_are_refused(handler):
    with pytest.raises(ValueError, match="NaN or infinite"):
        handler({"inputs": Image.fromarray(np.full((30, 30), np.nan, np.float32))})


def test_requirements_are_those_of_the_package(folder):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    known = {Requirement(line) for line in project["dependencies"]}
    wanted = [Requirement(line) for line in (folder / "requirements.txt").read_text().splitlines()]
    assert [requirement.name for requirement in wanted] == ["numpy", "pillow", "transformers"]
    assert set(wanted) <= known


@pytest.mark.parametrize("task", ["features", "pca"])
def test_the_shipped_model_answers(task):
    repository = Path(__file__).parents[2]
    handler = EndpointHandler(str(repository / "model_cards" / "alibi-dinov2-small"))
    image = Image.open(repository / "data" / "micrographs" / "superalloy_lshr_15kx.png")
    answer = handler({"inputs": image, "parameters": {"task": task, "size": 224}})
    if task == "features":
        features = array_of(answer["features"])
        assert features.shape == (*answer["grid"], 384)
        assert features.std(axis=(0, 1)).mean() > 0.1
    else:
        assert np.asarray(image_of(answer["image"])).std() > 20
