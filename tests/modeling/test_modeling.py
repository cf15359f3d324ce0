# SPDX-License-Identifier: Apache-2.0
import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Dinov2Config, Dinov2Model

from modeling_alibi_dinov2 import attention_alibi_dinov2
from tests.comparison import assert_close, largest_difference
from tests.modeling.reference import slow_bias

REPOSITORY = Path(__file__).parents[2]

SAME_WEIGHTS = "the same operations on the same weights"
OTHER_ORDER = "the keys come in another order in float32 sums, three layers"


@pytest.fixture
def built_biases(monkeypatch):
    """The shapes of the biases built so far."""
    built = []
    build = attention_alibi_dinov2.distances_to_bias

    def count(*arguments):
        bias = build(*arguments)
        built.append(bias.shape)
        return bias

    monkeypatch.setattr(attention_alibi_dinov2, "distances_to_bias", count)
    return built


def patch_map(model, pixels: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
    """Patch tokens as `(B, h, w, D)`."""
    prefix = 1 + model.config.num_register_tokens
    with torch.no_grad():
        return model(pixels).last_hidden_state[:, prefix:].unflatten(1, grid_size)


# --- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid_size", [(4, 4), (2, 5), (1, 1), (1, 7)])
@pytest.mark.parametrize("registers", [0, 4])
def test_tokens_of_any_grid(tiny_model, random_pixels, grid_size, registers):
    output = tiny_model(num_register_tokens=registers)(random_pixels(2, *grid_size))
    assert output.last_hidden_state.shape == (2, 1 + registers + grid_size[0] * grid_size[1], 48)
    assert output.last_hidden_state.isfinite().all()
    assert_close(output.pooler_output, output.last_hidden_state[:, 0], 0.0, "the [CLS] token itself")


def test_a_pair_of_patch_sides(tiny_model):
    model = tiny_model(patch_size=(14, 28))
    assert model(torch.randn(1, 3, 42, 56)).last_hidden_state.shape == (1, 5 + 3 * 2, 48)


def test_other_numbers_of_channels(tiny_model):
    assert tiny_model(num_channels=1)(torch.randn(1, 1, 28, 28)).last_hidden_state.shape == (1, 9, 48)


def test_hidden_states_and_attentions_on_request(tiny_model, random_pixels):
    model, pixels = tiny_model(attn_implementation="eager"), random_pixels(2, 3, 4)
    output = model(pixels, output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in output.hidden_states] == [(2, 17, 48)] * 4
    assert [weights.shape for weights in output.attentions] == [(2, 3, 17, 17)] * 3
    for weights in output.attentions:
        assert_close(weights.sum(dim=-1), torch.ones(2, 3, 17), 1e-5, "float32 sum of 17 weights")
    last = model.layernorm(output.hidden_states[-1])
    assert_close(last, output.last_hidden_state, 0.0, SAME_WEIGHTS)
    assert model(pixels).hidden_states is None


def test_a_tuple_on_request(tiny_model, random_pixels):
    model, pixels = tiny_model(), random_pixels(1, 2, 2)
    output = model(pixels, return_dict=False)
    assert isinstance(output, tuple)
    assert_close(output[0], model(pixels).last_hidden_state, 0.0, SAME_WEIGHTS)


# --- what the bias is for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid_size", [(4, 4), (3, 7), (6, 2)])
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"alibi_metric": "manhattan", "alibi_normalize": False},
        {"alibi_slopes": "geometric"},
        {"alibi_slopes": "learned"},
        {"alibi_slopes": "learned", "alibi_slopes_per": "head"},
        {"alibi_slope": 3.0},
    ],
)
def test_a_roll_of_the_image_by_whole_patches_rolls_the_patch_tokens(tiny_model, random_pixels, grid_size, overrides):
    model, pixels = tiny_model(**overrides), random_pixels(1, *grid_size)
    rolled = pixels.roll((2 * 14, -14), dims=(2, 3))
    expected = patch_map(model, pixels, grid_size).roll((2, -1), dims=(1, 2))
    assert_close(patch_map(model, rolled, grid_size), expected, 2e-5, OTHER_ORDER)
    with torch.no_grad():
        assert_close(model(rolled).pooler_output, model(pixels).pooler_output, 2e-5, OTHER_ORDER)


def test_a_roll_changes_the_tokens_without_the_torus(tiny_model, random_pixels):
    model, pixels = tiny_model(alibi_wrap=False), random_pixels(1, 4, 6)
    rolled = patch_map(model, pixels.roll((28, -14), dims=(2, 3)), (4, 6))
    assert largest_difference(rolled, patch_map(model, pixels, (4, 6)).roll((2, -1), dims=(1, 2))) > 1e-2


def test_a_roll_changes_the_tokens_of_the_teacher(tiny_teacher, random_pixels):
    model, pixels = tiny_teacher(), random_pixels(1, 4, 4)
    rolled = patch_map(model, pixels.roll((28, -14), dims=(2, 3)), (4, 4))
    assert largest_difference(rolled, patch_map(model, pixels, (4, 4)).roll((2, -1), dims=(1, 2))) > 1e-2


@pytest.mark.parametrize("attn_implementation", ["sdpa", "alibi_blockwise"])
def test_a_uniform_image_has_the_same_token_everywhere(tiny_model, attn_implementation):
    model = tiny_model(attn_implementation=attn_implementation)
    tokens = patch_map(model, torch.full((1, 3, 56, 84), 0.7), (4, 6))
    assert_close(tokens, tokens[:, :1, :1].expand_as(tokens), 2e-5, OTHER_ORDER)


def test_without_a_bias_the_order_of_the_patches_means_nothing(tiny_model, random_pixels):
    model, pixels = tiny_model(position_encoding="none"), random_pixels(1, 3, 4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    patches = pixels.unfold(2, 14, 14).unfold(3, 14, 14).flatten(2, 3)[:, :, order].unflatten(2, (3, 4))
    shuffled = patches.permute(0, 1, 2, 4, 3, 5).reshape(pixels.shape)
    expected = patch_map(model, pixels, (3, 4)).flatten(1, 2)[:, order]
    assert_close(patch_map(model, shuffled, (3, 4)).flatten(1, 2), expected, 2e-5, OTHER_ORDER)


# --- the stock model ------------------------------------------------------------------------------------------------


def require_equal_to_the_stock_model(student, teacher, pixels, grid_size):
    """Copy the teacher's weights; equal when its embedding is zero and the bias comes as a 4-D mask."""
    teacher.embeddings.position_embeddings.data.zero_()
    weights = teacher.state_dict()
    del weights["embeddings.position_embeddings"]
    missing, unexpected = student.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"embeddings.register_tokens"}
    prefix = student.config.num_prefix_tokens
    mask = slow_bias(grid_size, slopes=[1.0], num_prefix_tokens=prefix).expand(len(pixels), -1, -1, -1)
    with torch.no_grad():
        actual = student(pixels, output_hidden_states=True)
        expected = teacher(pixels, attention_mask=mask, output_hidden_states=True)
    for state, stock_state in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert_close(state, stock_state, 1e-5, "float32 rounding of the bias, three layers")
    assert_close(actual.last_hidden_state, expected.last_hidden_state, 1e-5, "float32 rounding of the bias")
    with torch.no_grad():
        assert largest_difference(actual.last_hidden_state, teacher(pixels).last_hidden_state) > 1e-2


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("grid_size", [(4, 4), (3, 5)])
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager", "alibi_blockwise"])
def test_the_untrained_student_is_the_teacher_without_embedding_and_with_the_bias_as_a_mask(
    tiny_model, tiny_teacher, random_pixels, registers, grid_size, attn_implementation
):
    student = tiny_model(attn_implementation=attn_implementation, num_register_tokens=registers)
    teacher = tiny_teacher(num_register_tokens=registers)
    require_equal_to_the_stock_model(student, teacher, random_pixels(2, *grid_size), grid_size)


def test_a_teacher_without_registers_has_the_same_weights_but_the_empty_registers(
    tiny_model, tiny_teacher, random_pixels
):
    student = tiny_model(num_register_tokens=0)
    teacher = tiny_teacher(Dinov2Model, Dinov2Config)
    require_equal_to_the_stock_model(student, teacher, random_pixels(2, 3, 5), (3, 5))


def test_the_swiglu_network_of_the_giant_model(tiny_model, tiny_teacher, random_pixels):
    student, teacher = tiny_model(use_swiglu_ffn=True), tiny_teacher(use_swiglu_ffn=True)
    require_equal_to_the_stock_model(student, teacher, random_pixels(1, 3, 5), (3, 5))


def test_there_is_no_position_embedding(tiny_model):
    assert not [name for name in tiny_model().state_dict() if "position" in name]


# --- the bias lives as long as a forward pass -----------------------------------------------------------------------


def test_all_layers_share_one_bias(tiny_model, random_pixels, built_biases, monkeypatch):
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def record(query, key, value, attn_mask=None, **kwargs):
        seen.append(attn_mask.data_ptr())
        return attend(query, key, value, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    tiny_model()(random_pixels(2, 4, 5))
    assert built_biases == [(1, 1, 25, 25)]
    assert len(seen) == 3
    assert len(set(seen)) == 1


def tensors_of_all_pairs(tokens: int) -> int:
    """How many tensors there are, of any kind, whose last two dimensions are `tokens`."""
    gc.collect()
    return sum(
        1
        for item in gc.get_objects()
        # `type`: some libraries' objects answer `isinstance` by importing half of themselves
        if issubclass(type(item), torch.Tensor) and tuple(item.shape[-2:]) == (tokens, tokens)
    )


@pytest.mark.parametrize("slopes", ["constant", "learned"])
def test_no_bias_outlives_the_forward_pass(tiny_model, random_pixels, slopes):
    model = tiny_model(alibi_slopes=slopes)
    with torch.no_grad():
        model(random_pixels(1, 4, 8))
    assert tensors_of_all_pairs(37) == 0


def test_tracing_leaves_no_tensor_without_data_to_later_passes(tiny_model, random_pixels):
    model, pixels = tiny_model(), random_pixels(1, 4, 7)
    with torch.no_grad():
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            model(mode.from_tensor(pixels))
        torch.export.export(model, (pixels,))
        model.set_attn_implementation("alibi_blockwise")
        expected = model(pixels).last_hidden_state
        model.set_attn_implementation("sdpa")
        assert_close(model(pixels).last_hidden_state, expected, 1e-5, "the same sums in another order, float32")


def test_copies_and_threads_do_not_disturb_each_other(tiny_model, random_pixels):
    model, grids = tiny_model(), [(2, 3), (3, 2), (4, 1), (2, 3)]
    with torch.no_grad():
        expected = [model(random_pixels(1, *grid)).last_hidden_state for grid in grids]
    models = [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model]

    @torch.no_grad()
    def run(index: int) -> list[torch.Tensor]:
        return [models[index](random_pixels(1, *grid)).last_hidden_state for grid in grids]

    with ThreadPoolExecutor(len(models)) as pool:
        for results in pool.map(run, range(len(models))):
            for actual, tokens in zip(results, expected, strict=True):
                assert_close(actual, tokens, 0.0, SAME_WEIGHTS)


@pytest.mark.parametrize("grid_mode", [torch.inference_mode, torch.no_grad])
def test_training_goes_on_at_a_grid_first_met_in_inference(tiny_model, random_pixels, grid_mode):
    model, pixels = tiny_model(), random_pixels(1, 3, 4)
    with grid_mode():
        model(pixels)
    model.train()
    model(pixels).last_hidden_state.square().mean().backward()
    assert model.encoder.layer[0].attention.q_proj.weight.grad.isfinite().all()


def test_nothing_of_the_bias_is_saved(tiny_model, random_pixels):
    model = tiny_model()
    model(random_pixels(1, 2, 3))
    assert not [name for name in model.state_dict() if "bias" in name.split(".")[-1] and "alibi" in name]
    assert not list(model.buffers())


# --- overlapping patches --------------------------------------------------------------------------------------------


def test_a_stride_of_half_a_patch_gives_a_finer_grid_from_the_same_weights(tiny_model, random_pixels):
    usual, fine, pixels = tiny_model(), tiny_model(patch_stride=7), random_pixels(2, 3, 4)
    assert [tensor.shape for tensor in usual.parameters()] == [tensor.shape for tensor in fine.parameters()]
    rows, columns = (42 - 14) // 7 + 1, (56 - 14) // 7 + 1
    assert fine(pixels).last_hidden_state.shape == (2, 5 + rows * columns, 48)

    patches = usual.embeddings.patch_embeddings(pixels).unflatten(1, (3, 4))
    fine_patches = fine.embeddings.patch_embeddings(pixels).unflatten(1, (rows, columns))
    assert_close(fine_patches[:, ::2, ::2], patches, 1e-5, "the same patches, convolved by another kernel")


def test_the_bias_follows_the_finer_grid(tiny_model, tiny_teacher, random_pixels):
    student, teacher = tiny_model(patch_stride=7), tiny_teacher()
    teacher.embeddings.position_embeddings.data.zero_()
    pixels = random_pixels(1, 3, 4)
    with torch.no_grad():
        embedded = student.embeddings(pixels)
        mask = slow_bias((5, 7), slopes=[1.0], num_prefix_tokens=5)
        teacher.load_state_dict(student.state_dict(), strict=False)
        expected = teacher.layernorm(teacher.encoder(embedded, attention_mask=mask).last_hidden_state)
        assert_close(student(pixels).last_hidden_state, expected, 1e-5, "float32 rounding of the bias, three layers")


def test_strides_may_differ_by_axis(tiny_model, random_pixels):
    model = tiny_model(patch_stride=(14, 7))
    assert model(random_pixels(1, 3, 4)).last_hidden_state.shape == (1, 5 + 3 * 7, 48)


def test_an_image_that_repeats_with_the_stride_has_the_same_token_everywhere(tiny_model):
    tile = torch.randn(1, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    tokens = patch_map(tiny_model(patch_stride=7), tile.repeat(1, 1, 8, 12), (7, 11))
    assert_close(tokens, tokens[:, :1, :1].expand_as(tokens), 2e-5, OTHER_ORDER)


def test_a_stride_of_one_patch_is_the_usual_grid(tiny_model, random_pixels):
    pixels = random_pixels(1, 3, 4)
    with torch.no_grad():
        expected = tiny_model()(pixels).last_hidden_state
        assert_close(tiny_model(patch_stride=14)(pixels).last_hidden_state, expected, 0.0, SAME_WEIGHTS)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (torch.zeros(1, 3, 30, 28), "height 30; .* multiple of the patch size, 14 pixels.* to 28 or 42, .*processor"),
        (torch.zeros(1, 3, 28, 99), "width 99; .* multiple of the patch size, 14 pixels.* to 98 or 112, .*processor"),
        (torch.zeros(1, 3, 13, 28), "height 13; .* multiple of the patch size, 14 pixels.* to 14 or 28"),
        (torch.zeros(1, 3, 28, 0), "width 0; .* multiple of the patch size, 14 pixels"),
        (torch.zeros(1, 1, 28, 28), r"shape \(1, 1, 28, 28\); .* 3 channels, .*processor converts greyscale"),
        (torch.zeros(1, 4, 28, 28), r"shape \(1, 4, 28, 28\); .* 3 channels, .*processor converts greyscale, RGBA"),
        (torch.zeros(3, 28, 28), r"shape \(3, 28, 28\); it must be \(batch, 3 channels, height, width\)"),
        (torch.zeros(1, 3, 28, 28, dtype=torch.uint8), "dtype torch.uint8; it must be floating .*image processor"),
        (torch.zeros(1, 3, 28, 28, dtype=torch.int64), "dtype torch.int64; it must be floating .*image processor"),
        (torch.zeros(1, 3, 28, 28, device="meta"), r"is on meta, the model on cpu.*`pixel_values.to\(model.device\)`"),
    ],
)
def test_pixels_that_do_not_fit_are_refused_with_the_remedy(tiny_model, pixels, said):
    with pytest.raises(ValueError, match=f"(?s)`pixel_values`.*{said}"):
        tiny_model()(pixels)
