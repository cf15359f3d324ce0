# SPDX-License-Identifier: Apache-2.0
"""Logits -> maps of classes that lie where their pixels came from."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.modeling_outputs import SemanticSegmenterOutput

from modeling_alibi_dinov2 import (
    Dinov2AlibiForSemanticSegmentation,
    Dinov2AlibiImageProcessor,
    image_processing_alibi_dinov2,
)
from tests.modeling.pictures import (
    MEAN,
    STD,
    picture,
    pixels_of,
)

# --- maps of classes ------------------------------------------------------------------------------------------------


def test_class_maps_take_the_largest_logit():
    logits = torch.randn(2, 4, 28, 42, generator=torch.Generator().manual_seed(0))
    maps = Dinov2AlibiImageProcessor().post_process_semantic_segmentation(SemanticSegmenterOutput(logits=logits))
    assert len(maps) == 2
    for class_map, image_logits in zip(maps, logits, strict=True):
        assert class_map.dtype == torch.int64
        assert torch.equal(class_map, image_logits.argmax(dim=0))


def test_class_maps_of_the_sizes_asked_for():
    logits = torch.zeros(2, 3, 28, 28)
    logits[:, 1, :14] = 1.0
    logits[:, 2, 14:] = 1.0
    maps = Dinov2AlibiImageProcessor().post_process_semantic_segmentation(
        SemanticSegmenterOutput(logits=logits), target_sizes=[(100, 60), (14, 42)]
    )
    for class_map, size in zip(maps, [(100, 60), (14, 42)], strict=True):
        assert class_map.shape == size
        assert class_map[: size[0] // 2].unique().tolist() == [1]
        assert class_map[size[0] // 2 :].unique().tolist() == [2]


def class_map_of(processor, image: Image.Image, **choices) -> tuple[np.ndarray, np.ndarray]:
    """The map from a model that sees red and not red, and red itself, for the whole image."""
    pixels = pixels_of(processor, image, **choices)
    red = pixels[:, :1] * STD[0].item() + MEAN[0].item() - 0.5
    outputs = SemanticSegmenterOutput(logits=torch.cat([-red, red], dim=1))
    size = (image.height, image.width)
    (class_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[size], **choices)
    assert class_map.shape == size
    assert class_map.dtype == torch.int64
    return class_map.numpy(), np.asarray(image)[..., 0] > 127


def squares(height: int, width: int) -> Image.Image:
    """A red rectangle off the centre, on black."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[height // 3 : height // 2, width // 4 : width // 2, 0] = 255
    return Image.fromarray(pixels)


WAYS = {
    "the defaults": {},
    "whole, resized": {"do_center_crop": False},
    "whole, resized to rounded sides": {"do_center_crop": False, "size": {"shortest_edge": 230}},
    "whole, of a size of its own": {"do_center_crop": False, "size": {"height": 280, "width": 224}},
    "not resized": {"do_center_crop": False, "do_resize": False},
    "a crop of the image as it is": {"do_resize": False, "crop_size": {"height": 224, "width": 294}},
    "a crop larger than the image": {"crop_size": {"height": 420, "width": 448}},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(300, 300), (271, 403), (391, 265)])
@pytest.mark.parametrize("told", ["at construction", "at the call"])
def test_a_class_map_lies_where_its_pixels_came_from(way, size, told):
    choices = WAYS[way]
    processor = Dinov2AlibiImageProcessor(**choices) if told == "at construction" else Dinov2AlibiImageProcessor()
    found, expected = class_map_of(processor, squares(*size), **({} if told == "at construction" else choices))
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    true_rows, true_columns = (np.flatnonzero(expected.any(axis=axis)) for axis in (1, 0))
    for edges, true_edges in ((rows, true_rows), (columns, true_columns)):
        # Resizing blurs an edge over a pixel of the smaller image, which is up to 1.4 here.
        assert abs(edges[[0, -1]] - true_edges[[0, -1]]).max() <= 1
    assert (found != expected).mean() < 0.01


def test_class_maps_of_padded_images(as_they_are):
    images = [squares(280, 300), squares(420, 350)]
    processor = Dinov2AlibiImageProcessor(do_resize=False, do_center_crop=False, do_pad=True)
    red = pixels_of(processor, images)[:, :1]
    outputs = SemanticSegmenterOutput(logits=torch.cat([-red, red], dim=1))
    maps = processor.post_process_semantic_segmentation(outputs, target_sizes=torch.tensor([[280, 300], [420, 350]]))
    for class_map, image in zip(maps, images, strict=True):
        assert class_map.shape == (image.height, image.width)
        assert (class_map.numpy() != (np.asarray(image)[..., 0] > 127)).mean() < 0.01


@pytest.fixture
def warnings_of_the_processor(monkeypatch):
    said = []
    monkeypatch.setattr(image_processing_alibi_dinov2.logger, "warning_once", said.append)
    return said


def test_what_the_model_has_not_seen_is_said(warnings_of_the_processor):
    class_map_of(Dinov2AlibiImageProcessor(do_center_crop=False), squares(300, 400))
    class_map_of(Dinov2AlibiImageProcessor(do_center_crop=False, do_resize=False), squares(300, 400))
    assert not warnings_of_the_processor
    class_map_of(Dinov2AlibiImageProcessor(), squares(300, 400))
    (said,) = warnings_of_the_processor
    assert "seen 224×224 pixels from the centre of 256×341" in said
    assert "`do_center_crop=False`" in said


def test_logits_that_the_choices_do_not_lead_to_are_said(warnings_of_the_processor):
    outputs = SemanticSegmenterOutput(logits=torch.zeros(1, 2, 28, 42))
    Dinov2AlibiImageProcessor().post_process_semantic_segmentation(outputs, target_sizes=[(300, 400)])
    (said,) = warnings_of_the_processor
    assert "logits are 28×42, but this image processor makes 224×224 of 300×400" in said


def test_a_choice_that_does_not_exist_is_refused():
    outputs = SemanticSegmenterOutput(logits=torch.zeros(1, 2, 224, 224))
    with pytest.raises(TypeError, match="do_centre_crop: not among the choices of Dinov2AlibiImageProcessor"):
        Dinov2AlibiImageProcessor().post_process_semantic_segmentation(outputs, [(300, 400)], do_centre_crop=False)


def test_class_maps_need_a_size_for_each_image():
    outputs = SemanticSegmenterOutput(logits=torch.zeros(2, 3, 28, 28))
    with pytest.raises(ValueError, match="`target_sizes` has 1 entries for 2 images"):
        Dinov2AlibiImageProcessor().post_process_semantic_segmentation(outputs, target_sizes=[(28, 28)])


def test_from_an_image_to_its_class_map(tiny_model):
    processor = Dinov2AlibiImageProcessor(size={"shortest_edge": 56}, do_center_crop=False)
    image = picture(90, 130)
    with torch.no_grad():
        outputs = tiny_model(Dinov2AlibiForSemanticSegmentation, num_labels=3)(**processor(image, return_tensors="pt"))
    (class_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(90, 130)])
    assert class_map.shape == (90, 130)
    assert set(class_map.unique().tolist()) <= {0, 1, 2}
