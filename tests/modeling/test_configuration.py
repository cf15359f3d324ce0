# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, Dinov2WithRegistersConfig

from modeling_alibi_dinov2 import Dinov2AlibiConfig

OTHER_THAN_DEFAULT = {
    "patch_size": 28,
    "patch_stride": 7,
    "num_register_tokens": 2,
    "alibi_metric": "manhattan",
    "alibi_wrap": False,
    "alibi_normalize": False,
    "alibi_slopes": "learned",
    "alibi_slopes_per": "layer",
    "alibi_slope": -0.5,
    "alibi_jitter": 0.25,
    "classifier_dropout": 0.5,
    "semantic_loss_ignore_index": -100,
}


def test_defaults_are_the_published_model():
    config = Dinov2AlibiConfig()
    assert config.model_type == "dinov2_alibi"
    assert (config.position_encoding, config.alibi_metric, config.alibi_slopes) == ("alibi", "euclidean", "constant")
    assert config.alibi_wrap
    assert config.alibi_normalize
    assert config.alibi_slope is None
    assert config.alibi_jitter == 0
    assert (config.patch_shape, config.stride_shape) == ((14, 14), (14, 14))
    assert (config.num_register_tokens, config.num_prefix_tokens) == (4, 5)


def test_it_is_a_dinov2_with_registers_config():
    assert issubclass(Dinov2AlibiConfig, Dinov2WithRegistersConfig)
    config = Dinov2AlibiConfig(num_hidden_layers=3, out_features=["stage1", "stage3"])
    assert config.stage_names == ["stem", "stage1", "stage2", "stage3"]
    assert config.out_indices == [1, 3]


@pytest.mark.parametrize(
    "fields", [OTHER_THAN_DEFAULT, {"position_encoding": "none"}, {"patch_size": [14, 28], "patch_stride": [7, 14]}]
)
def test_every_field_survives_save_and_load(tmp_path, fields):
    Dinov2AlibiConfig(**fields).save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is Dinov2AlibiConfig
    assert {name: getattr(loaded, name) for name in fields} == fields


def test_a_pair_means_height_and_width():
    config = Dinov2AlibiConfig(patch_size=(14, 28), patch_stride=(7, 28))
    assert config.patch_shape == (14, 28)
    assert config.stride_shape == (7, 28)


def test_stride_defaults_to_the_patch():
    assert Dinov2AlibiConfig(patch_size=(14, 28)).stride_shape == (14, 28)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"position_encoding": "rope"}, "`position_encoding` is 'rope'; it must be one of alibi, none"),
        ({"alibi_metric": "chebyshev"}, "`alibi_metric` is 'chebyshev'; it must be one of euclidean, manhattan"),
        ({"alibi_slopes": "linear"}, "`alibi_slopes` is 'linear'; it must be one of constant, geometric, learned"),
        ({"alibi_slopes_per": "patch"}, "is 'patch'; it must be one of head_and_layer, head, layer, model"),
        ({"alibi_slopes_per": "head"}, "`alibi_slopes_per` is 'head', which is of learned slopes, but .* 'constant'"),
        ({"alibi_slopes": "geometric", "alibi_slope": 2}, "`alibi_slope` is 2, but geometric slopes follow"),
        ({"alibi_slope": float("nan")}, "`alibi_slope` is nan; it must be a finite number"),
        ({"alibi_slope": float("-inf")}, "`alibi_slope` is -inf; it must be a finite number"),
        ({"position_encoding": "none", "alibi_slope": 2}, "no bias, but .* `alibi_slope` is 2"),
        ({"alibi_jitter": -0.1}, "`alibi_jitter` is -0.1; it must be 0"),
        ({"alibi_jitter": float("nan")}, "`alibi_jitter` is nan; it must be 0"),
        ({"alibi_jitter": float("inf")}, "`alibi_jitter` is inf; it must be 0"),
        ({"num_register_tokens": -1}, "`num_register_tokens` is -1; it must be 0"),
        ({"num_attention_heads": 5}, "`num_attention_heads` is 5; it must divide `hidden_size`, which is 768"),
        ({"num_attention_heads": 0}, "`num_attention_heads` is 0; it must divide `hidden_size`, which is 768"),
        ({"classifier_dropout": 1.5}, r"`classifier_dropout` is 1.5; it must lie in \[0, 1\]"),
        ({"patch_size": 0}, "`patch_size` has height 0; it must be 1 pixel or more"),
        ({"patch_size": [14, 14, 14]}, r"pair, got \[14, 14, 14\]"),
        ({"patch_stride": 28}, r"`patch_stride` has height 28; it must divide .* 14 pixels, .* \[1, 2, 7, 14\]"),
        ({"patch_stride": 4}, r"`patch_stride` has height 4; it must divide .* 14 pixels, .* \[1, 2, 7, 14\]"),
        ({"patch_stride": 0}, r"`patch_stride` has height 0; it must divide .* 14 pixels, .* \[1, 2, 7, 14\]"),
        ({"patch_stride": [7, 3]}, r"`patch_stride` has width 3; it must divide .* 14 pixels, .* \[1, 2, 7, 14\]"),
        ({"position_encoding": "none", "alibi_slopes": "learned"}, "no bias, but `alibi_slopes` is 'learned'"),
        ({"position_encoding": "none", "alibi_jitter": 0.1}, "no bias, but .* `alibi_jitter` is 0.1"),
        ({"alibi_wrap": "yes"}, "alibi_wrap.* expected bool, got str"),
        ({"alibi_jitter": "0.1"}, "alibi_jitter.*with value '0.1' doesn't match any type"),
    ],
)
def test_a_wrong_value_is_named_with_the_allowed_ones(fields, said):
    with pytest.raises(StrictDataclassError, match=f"(?s){said}"):
        Dinov2AlibiConfig(**fields)


def test_a_wrong_value_in_a_file_is_named_too(tmp_path):
    Dinov2AlibiConfig().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"alibi_metric": "chebyshev"}))
    with pytest.raises(StrictDataclassError, match="`alibi_metric` is 'chebyshev'; it must be one of euclidean"):
        AutoConfig.from_pretrained(tmp_path)
