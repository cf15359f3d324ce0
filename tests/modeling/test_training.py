# SPDX-License-Identifier: Apache-2.0
"""Gradients, learned slopes, gradient checkpointing and other precisions than float32."""

from pathlib import Path

import pytest
import torch

from modeling_alibi_dinov2 import Dinov2AlibiModel
from tests.comparison import assert_close, largest_difference
from tests.modeling.transformers_names import enable_checkpointing

REPOSITORY = Path(__file__).parents[2]

SHARINGS = [
    {"alibi_slopes": "learned", "alibi_slopes_per": per} for per in ("head_and_layer", "head", "layer", "model")
]
SAME_WEIGHTS = "the same operations on the same weights"
OTHER_ORDER = "the keys come in another order in float32 sums, three layers"


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager", "alibi_blockwise"])
@pytest.mark.parametrize("slopes", [{}, *SHARINGS], ids=str)
def test_gradients_reach_every_trainable_parameter(tiny_model, random_pixels, attn_implementation, slopes):
    model = tiny_model(attn_implementation=attn_implementation, **slopes).train()
    output = model(random_pixels(2, 3, 4)).last_hidden_state
    (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, parameter in model.named_parameters():
        if name == "embeddings.mask_token":
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # A bias of the keys shifts all scores of a query alike, which the softmax does not see.
            assert parameter.grad.count_nonzero() or name.endswith("k_proj.bias"), name


def test_the_mask_token_learns_from_masked_patches(tiny_model, random_pixels):
    model = tiny_model()
    masked = torch.zeros(2, 12, dtype=torch.bool)
    masked[0, 3] = True
    model(random_pixels(2, 3, 4), bool_masked_pos=masked).last_hidden_state.square().mean().backward()
    assert model.embeddings.mask_token.grad.count_nonzero() == 48


def test_a_masked_patch_leaves_no_trace_of_its_pixels(tiny_model, random_pixels):
    model, pixels = tiny_model(), random_pixels(1, 3, 4)
    masked = torch.zeros(1, 12, dtype=torch.bool)
    masked[0, 6] = True  # row 1, column 2
    altered = pixels.clone()
    altered[:, :, 14:28, 28:42] = 5
    with torch.no_grad():
        before, after = (model(x, bool_masked_pos=masked).last_hidden_state for x in (pixels, altered))
        assert_close(after, before, 0.0, "the mask token has replaced the patch")
        assert largest_difference(before, model(pixels).last_hidden_state) > 1e-2


def test_learned_slopes_start_in_the_unit_interval_and_differ(tiny_model):
    slopes = torch.stack([layer.attention.alibi_slopes for layer in tiny_model(alibi_slopes="learned").encoder.layer])
    assert slopes.shape == (3, 3)
    assert slopes.min() >= 0
    assert slopes.max() < 1
    assert slopes.unique().numel() == 9


@pytest.mark.parametrize(("slopes", "count"), zip(SHARINGS, (9, 3, 3, 1), strict=True), ids=str)
def test_learned_slopes_are_as_many_as_their_sharing_says_and_start_where_told(tiny_model, tmp_path, slopes, count):
    model = tiny_model(**slopes, alibi_slope=-1.5)
    found = {name: tensor for name, tensor in model.state_dict().items() if name.endswith("alibi_slopes")}
    assert torch.cat(list(found.values())).tolist() == [-1.5] * count
    for tensor in found.values():
        tensor.normal_()
    model.save_pretrained(tmp_path)
    loaded = Dinov2AlibiModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in found.items())


def test_one_learned_slope_per_model_is_a_constant_one(tiny_model, random_pixels):
    learned = tiny_model(alibi_slopes="learned", alibi_slopes_per="model", alibi_slope=2.25)
    constant = tiny_model(alibi_slope=2.25)
    weights = {name: tensor for name, tensor in learned.state_dict().items() if not name.endswith("alibi_slopes")}
    constant.load_state_dict(weights)
    pixels = random_pixels(1, 3, 4)
    with torch.no_grad():
        assert_close(learned(pixels).last_hidden_state, constant(pixels).last_hidden_state, 0.0, "the same operations")


def test_learned_slopes_change_by_a_step_of_the_optimiser(tiny_model, random_pixels):
    model = tiny_model(alibi_slopes="learned")
    slopes = [layer.attention.alibi_slopes for layer in model.encoder.layer]
    before = [slope.detach().clone() for slope in slopes]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    output = model(random_pixels(2, 3, 4)).last_hidden_state
    (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    optimiser.step()
    for slope, start in zip(slopes, before, strict=True):
        assert (slope.detach() - start).abs().min() > 1e-3


def test_learned_slopes_are_drawn_afresh_when_the_checkpoint_has_none(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model = Dinov2AlibiModel.from_pretrained(tmp_path, alibi_slopes="learned")
    slopes = torch.stack([layer.attention.alibi_slopes for layer in model.encoder.layer])
    assert slopes.min() >= 0
    assert slopes.max() < 1
    assert slopes.unique().numel() == 9


@pytest.mark.parametrize("attn_implementation", ["sdpa", "alibi_blockwise"])
@pytest.mark.parametrize("slopes", ["constant", "learned"])
def test_gradient_checkpointing_gives_the_same_gradients(tiny_model, random_pixels, attn_implementation, slopes):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(attn_implementation=attn_implementation, alibi_slopes=slopes).train()
        if checkpointing:
            enable_checkpointing(model)
        model(random_pixels(2, 3, 4)).last_hidden_state.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, 1e-7, f"the same operations run twice: {name}")


# --- half precision -------------------------------------------------------------------------------------------------


def mean_cosine(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(actual.float(), expected.float(), dim=-1).mean().item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager", "alibi_blockwise"])
@pytest.mark.parametrize("slopes", ["constant", "learned"])
def test_half_precision_is_close_to_single(tiny_model, random_pixels, dtype, attn_implementation, slopes):
    model, pixels = tiny_model(attn_implementation=attn_implementation, alibi_slopes=slopes), random_pixels(2, 3, 4)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
        actual = model.to(dtype)(pixels.to(dtype)).last_hidden_state
    assert actual.dtype == dtype
    assert mean_cosine(actual, expected) > 0.999


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager", "alibi_blockwise"])
@pytest.mark.parametrize("slopes", ["constant", "learned"])
def test_autocast_trains(tiny_model, random_pixels, attn_implementation, slopes):
    model, pixels = tiny_model(attn_implementation=attn_implementation, alibi_slopes=slopes), random_pixels(2, 3, 4)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(pixels).last_hidden_state
    assert mean_cosine(output, expected) > 0.999
    output.float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_autocast_takes_half_precision_pixels(tiny_model, random_pixels):
    model, pixels = tiny_model(), random_pixels(1, 3, 4)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        actual = model(pixels.bfloat16()).last_hidden_state
        assert_close(actual, model(pixels).last_hidden_state, 0.0, "autocast rounds the pixels itself")


@pytest.mark.parametrize("attn_implementation", ["sdpa", "alibi_blockwise"])
def test_the_bias_has_the_dtype_of_the_queries(tiny_model, random_pixels, monkeypatch, attn_implementation):
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def record(query, key, value, attn_mask=None, **kwargs):
        if attn_mask is not None:
            seen.append((query.dtype, attn_mask.dtype))
        return attend(query, key, value, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    model, pixels = tiny_model(attn_implementation=attn_implementation), random_pixels(1, 3, 4)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(pixels)
            model.encoder(torch.randn(1, 17, 48), grid_size=(3, 4))
        model.to(torch.float16)(pixels.half())
    assert seen == [(torch.bfloat16, torch.bfloat16)] * 6 + [(torch.float16, torch.float16)] * 3
