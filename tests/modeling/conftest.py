# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Models this small gain nothing from more threads, and lose much to them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def as_they_are():
    """A processor that neither resizes nor crops 28×42 pixels."""
    return Dinov2AlibiImageProcessor(do_resize=False, do_center_crop=False)


@pytest.fixture
def dinov2_processor():
    """DINOv2's own."""
    return BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    )
