# SPDX-License-Identifier: Apache-2.0
"""The cache gives back what was stored, for the same image, model and settings only, and nothing that is damaged."""

import numpy as np
import pytest
import torch
from PIL import Image

from alibi_dinov2.features.backbone import Backbone, Removal
from alibi_dinov2.features.feature_cache import FeatureCache, MemoryCache, backbone_fingerprint
from evaluation.position.noise import noise_images
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

FEATURES = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32) * 10


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


def test_features_come_back_in_half_precision(cache):
    cache.store("key", FEATURES[::-1])
    found = cache.load("key")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, FEATURES[::-1].astype(np.float16))
    assert cache.load("other") is None


def test_features_are_computed_once_and_the_same_ever_after(cache):
    calls = []

    def compute():
        calls.append(1)
        return FEATURES

    first, second = cache.get("key", compute), FeatureCache(cache.folder).get("key", compute)
    np.testing.assert_array_equal(first, second)
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped bit", "other file"])
def test_damaged_file_is_computed_again(cache, damage):
    cache.store("key", FEATURES)
    path = cache.files.path("key")
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    elif damage == "other file":
        content = bytearray(b"not safetensors at all")
    else:
        content[-100] ^= 1
    path.write_bytes(content)
    assert cache.load("key") is None
    np.testing.assert_array_equal(cache.get("key", lambda: FEATURES), FEATURES.astype(np.float16))
    assert cache.load("key") is not None


def test_nothing_is_left_of_a_write_that_failed(cache):
    for features in (np.full((2, 2, 3), 1e6), np.array([[[np.nan]]])):
        with pytest.raises(ValueError, match="not finite, or beyond ±65504"):
            cache.store("key", features)
    assert not cache.folder.exists()
    cache.folder.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="cache"):
        cache.store("key", FEATURES)


def test_key_tells_images_models_and_settings_apart():
    first, second = noise_images(2, 8)
    keys = [
        FeatureCache.key("model", first, size=56, layers=None),
        FeatureCache.key("other", first, size=56, layers=None),
        FeatureCache.key("model", second, size=56, layers=None),
        FeatureCache.key("model", first, size=70, layers=None),
        FeatureCache.key("model", first, size=56, layers=[3]),
        FeatureCache.key("model", first.convert("L"), size=56, layers=None),
        FeatureCache.key("model", Image.frombytes("RGB", (4, 16), first.tobytes()), size=56, layers=None),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == FeatureCache.key("model", first.copy(), layers=None, size=56)


def test_fingerprint_tells_models_apart(tiny_model):
    def fingerprint(model, removal=None, **processor):
        return backbone_fingerprint(Backbone(model, Dinov2AlibiImageProcessor(**processor), "source", "name", removal))

    changed = tiny_model()
    with torch.no_grad():
        changed.layernorm.bias[3] += 1e-6
    others = [
        fingerprint(changed),
        fingerprint(tiny_model(alibi_metric="manhattan")),
        fingerprint(tiny_model(), image_mean=[0.5, 0.5, 0.5]),
        *(
            fingerprint(
                tiny_model(), Removal("blank-channels", {"channels": channels}, 1, lambda features_of, pixels: ...)
            )
            for channels in ([3], [4])
        ),
    ]
    assert fingerprint(tiny_model()) == fingerprint(tiny_model())
    assert len({fingerprint(tiny_model()), *others}) == 6


def test_what_is_larger_than_the_limit_pushes_nothing_out():
    cache = MemoryCache(2**20)
    small, large = np.ones(2**17, dtype=np.float32), np.ones(2**19, dtype=np.float32)
    cache.put("small", small)
    np.testing.assert_array_equal(cache.get("large", lambda: large), large)
    assert "small" in cache
    assert "large" not in cache
    assert cache.bytes == small.nbytes
    assert cache.largest == large.nbytes


def test_what_is_kept_in_memory_is_a_copy():
    cache, array = MemoryCache(), np.arange(2**17, dtype=np.float32).reshape(2**8, -1)
    kept = cache.get("array", lambda: array)
    expected = array.copy()
    array[:] = 0
    np.testing.assert_array_equal(cache.get("array", lambda: array), expected)
    assert kept.shape == expected.shape
    assert kept.dtype == expected.dtype
