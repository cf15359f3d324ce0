# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import masking_utils

from modeling_alibi_dinov2 import Dinov2AlibiModel, attention_alibi_dinov2, modeling_alibi_dinov2
from tests.comparison import assert_close, largest_difference
from tests.modeling.reference import slow_bias, slow_slopes

SAME_SUM = "the same sums in another order, float32, three layers"
SAME_GRADIENT = "the same sums in another order, float32, three layers there and back"

VARIANTS = [
    {},
    {"alibi_slopes": "geometric"},
    {"alibi_slopes": "learned"},
    {"alibi_slopes": "learned", "alibi_slopes_per": "layer"},
    {"alibi_slopes": "learned", "alibi_slopes_per": "head"},
    {"alibi_slopes": "learned", "alibi_slopes_per": "model"},
    {"alibi_slope": -2.0},
    {"position_encoding": "none"},
    {"alibi_metric": "manhattan", "alibi_wrap": False, "alibi_normalize": False, "alibi_slopes": "geometric"},
    {"num_register_tokens": 0, "alibi_wrap": False},
]


SLOPE_FIELDS = {"alibi_slopes", "alibi_slopes_per", "alibi_slope"}


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that a grid of 4×5 patches needs several; counts them."""
    blocks = []
    cut = attention_alibi_dinov2.query_blocks

    def count(*arguments):
        for block in cut(*arguments):
            blocks.append(block)
            yield block

    monkeypatch.setattr(attention_alibi_dinov2, "BLOCK_BYTES", 512)
    monkeypatch.setattr(attention_alibi_dinov2, "query_blocks", count)
    return blocks


@pytest.fixture
def uncompiled_flex_mask(monkeypatch):
    """The mask that Transformers makes for FlexAttention, without its compiler, which takes longer than all else."""
    create = masking_utils.create_block_mask

    def create_uncompiled(*args, **kwargs):
        return create(*args, **(kwargs | {"_compile": False}))

    monkeypatch.setattr(masking_utils, "create_block_mask", create_uncompiled)


@pytest.fixture
def uncompiled_flex(monkeypatch, uncompiled_flex_mask):
    """FlexAttention without its compiler: dense, with the same score function."""

    def run(query, key, value, *, score_mod, block_mask, scale, training):
        return flex_attention(query, key, value, score_mod=score_mod, block_mask=block_mask, scale=scale)

    monkeypatch.setattr(attention_alibi_dinov2, "compile_friendly_flex_attention", run)


@pytest.fixture
def seen_biases(monkeypatch):
    """What the eager attention of each layer is given as a mask."""
    masks = []
    attend = modeling_alibi_dinov2.eager_attention_forward

    def record(module, query, key, value, attention_mask, **kwargs):
        masks.append(attention_mask)
        return attend(module, query, key, value, attention_mask, **kwargs)

    monkeypatch.setattr(modeling_alibi_dinov2, "eager_attention_forward", record)
    return masks


def tokens(model: Dinov2AlibiModel, pixels: torch.Tensor, attn_implementation: str, **kwargs) -> torch.Tensor:
    model.set_attn_implementation(attn_implementation)
    return model(pixels, **kwargs).last_hidden_state


@pytest.mark.parametrize("overrides", VARIANTS)
def test_eager_equals_sdpa(tiny_model, random_pixels, overrides):
    model, pixels = tiny_model(**overrides), random_pixels(2, 4, 5)
    with torch.no_grad():
        assert_close(tokens(model, pixels, "eager"), tokens(model, pixels, "sdpa"), 1e-5, SAME_SUM)


@pytest.mark.parametrize("overrides", VARIANTS)
def test_blockwise_equals_sdpa(tiny_model, random_pixels, small_blocks, overrides):
    model, pixels = tiny_model(**overrides), random_pixels(2, 4, 5)
    with torch.no_grad():
        assert_close(tokens(model, pixels, "alibi_blockwise"), tokens(model, pixels, "sdpa"), 1e-5, SAME_SUM)
    assert len(small_blocks) >= 2 * model.config.num_hidden_layers


@pytest.mark.parametrize("overrides", VARIANTS)
def test_flex_equals_sdpa(tiny_model, random_pixels, uncompiled_flex, overrides):
    model, pixels = tiny_model(**overrides), random_pixels(2, 4, 5)
    with torch.no_grad():
        assert_close(tokens(model, pixels, "flex_attention"), tokens(model, pixels, "sdpa"), 1e-5, SAME_SUM)


def test_compiled_flex_equals_sdpa(tiny_model, random_pixels, uncompiled_flex_mask):
    model, pixels = tiny_model(alibi_slopes="geometric", num_hidden_layers=1), random_pixels(2, 4, 5)
    with torch.no_grad():
        assert_close(tokens(model, pixels, "flex_attention"), tokens(model, pixels, "sdpa"), 1e-5, SAME_SUM)


@pytest.mark.parametrize("overrides", [*VARIANTS, {"alibi_slopes": "learned", "num_register_tokens": 0}])
def test_gradients_of_sdpa_and_blockwise_agree(tiny_model, random_pixels, small_blocks, overrides):
    pixels = random_pixels(2, 4, 5)
    gradients = {}
    for attn_implementation in ("sdpa", "alibi_blockwise"):
        model = tiny_model(attn_implementation=attn_implementation, **overrides)
        output = model(pixels).last_hidden_state
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).mean().backward()
        gradients[attn_implementation] = {
            name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
        }
    assert gradients["sdpa"].keys() == gradients["alibi_blockwise"].keys()
    for name, gradient in gradients["sdpa"].items():
        assert_close(gradients["alibi_blockwise"][name], gradient, 1e-5, f"{SAME_GRADIENT}: {name}")
    assert len(small_blocks) >= 2 * model.config.num_hidden_layers


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        sizes = (leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor))
        self.elements = max(self.elements, *sizes, 0)
        return output


@pytest.mark.parametrize(
    ("attn_implementation", "slopes", "builds_it"),
    [
        ("alibi_blockwise", "constant", False),
        ("alibi_blockwise", "geometric", False),
        ("alibi_blockwise", "learned", False),
        ("sdpa", "constant", True),
    ],
)
def test_only_blockwise_never_builds_a_tensor_of_all_pairs_of_tokens(
    tiny_model, random_pixels, monkeypatch, attn_implementation, slopes, builds_it
):
    monkeypatch.setattr(attention_alibi_dinov2, "BLOCK_BYTES", 2**16)
    model = tiny_model(attn_implementation=attn_implementation, alibi_slopes=slopes, patch_size=2)
    pixels = random_pixels(1, 19, 21, patch=2)
    pairs = (19 * 21 + model.config.num_prefix_tokens) ** 2
    with LargestTensor() as largest:
        model(pixels).last_hidden_state.sum().backward()
    assert (largest.elements >= pairs) is builds_it


@pytest.mark.parametrize(
    ("attn_implementation", "slopes", "keeps_it"),
    [("alibi_blockwise", "constant", False), ("alibi_blockwise", "learned", False), ("sdpa", "constant", True)],
)
def test_only_blockwise_keeps_no_bias_for_the_backward_pass(
    tiny_model, random_pixels, small_blocks, attn_implementation, slopes, keeps_it
):
    model = tiny_model(attn_implementation=attn_implementation, alibi_slopes=slopes)
    tokens_of_grid, kept = 25, []

    def pack(tensor):
        if tensor.shape[-1] == tokens_of_grid:  # one column for each key: a bias or weights
            kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(random_pixels(1, 4, 5)).last_hidden_state.sum().backward()
    assert bool(kept) is keeps_it


def test_a_block_fits_its_budget_and_the_blocks_cover_every_patch_once(monkeypatch):
    monkeypatch.setattr(attention_alibi_dinov2, "BLOCK_BYTES", 1000)
    blocks = list(attention_alibi_dinov2.query_blocks(25, bytes_per_query=100))
    assert [(block.start, block.stop) for block in blocks] == [(0, 10), (10, 20), (20, 25)]
    blocks = list(attention_alibi_dinov2.query_blocks(3, bytes_per_query=5000))
    assert [(block.start, block.stop) for block in blocks] == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("overrides", [variant for variant in VARIANTS if set(variant) <= SLOPE_FIELDS])
@pytest.mark.parametrize("grid_size", [(3, 5), (1, 1), (1, 4)])
def test_every_layer_gets_the_bias_of_the_definition(tiny_model, random_pixels, seen_biases, overrides, grid_size):
    model = tiny_model(attn_implementation="eager", **overrides)
    model(random_pixels(1, *grid_size))
    assert len(seen_biases) == model.config.num_hidden_layers
    fixed = slow_slopes(model.config.alibi_slopes, 3, model.config.alibi_slope)
    for layer, bias in zip(model.encoder.layer, seen_biases, strict=True):
        learned = layer.attention.alibi_slopes if model.encoder.alibi_slopes is None else model.encoder.alibi_slopes
        slopes = fixed if learned is None else learned.expand(3).tolist()
        expected = slow_bias(grid_size, slopes=slopes, num_prefix_tokens=5)
        assert_close(bias.expand(expected.shape), expected, 2e-6, "float32 rounding of numbers below 1")


def test_nope_has_no_bias(tiny_model, random_pixels, seen_biases):
    tiny_model(attn_implementation="eager", position_encoding="none")(random_pixels(1, 3, 5))
    assert seen_biases == [None] * 3


def test_the_bias_matters(tiny_model, random_pixels):
    pixels = random_pixels(1, 4, 5)
    with torch.no_grad():
        outputs = [tiny_model(**overrides)(pixels).last_hidden_state for overrides in VARIANTS[:-1]]
    for i, output in enumerate(outputs):
        for other in outputs[:i]:
            assert largest_difference(output, other) > 1e-2


@pytest.mark.parametrize("overrides", VARIANTS)
def test_a_mask_of_the_caller_is_added_to_the_bias_alike_on_every_path(
    tiny_model, random_pixels, small_blocks, uncompiled_flex, overrides
):
    model, pixels = tiny_model(**overrides), random_pixels(2, 4, 5)
    mask = torch.ones(2, model.config.num_prefix_tokens + 20, dtype=torch.long)
    mask[0, 8] = 0
    mask[1, -6:] = 0
    with torch.no_grad():
        expected = tokens(model, pixels, "sdpa", attention_mask=mask)
        assert largest_difference(expected, tokens(model, pixels, "sdpa")) > 1e-2
        for attn_implementation in ("eager", "alibi_blockwise", "flex_attention"):
            actual = tokens(model, pixels, attn_implementation, attention_mask=mask)
            assert_close(actual, expected, 1e-5, f"{SAME_SUM}: {attn_implementation}")


def test_masked_tokens_have_no_influence(tiny_model, random_pixels):
    model, pixels = tiny_model(), random_pixels(1, 4, 5)
    mask = torch.ones(1, 25, dtype=torch.bool)
    mask[0, 5 + 7] = False  # row 1, column 2
    altered = pixels.clone()
    altered[:, :, 14:28, 28:42] += 3
    with torch.no_grad():
        before, after = (model(x, attention_mask=mask).last_hidden_state[mask] for x in (pixels, altered))
        assert_close(after, before, 0.0, "a masked key has weight zero")
        assert largest_difference(model(altered).last_hidden_state[mask], before) > 1e-2


@pytest.mark.parametrize("kind", ["additive", "boolean", "one row for all queries"])
def test_a_four_dimensional_mask_is_the_same_on_every_path(tiny_model, random_pixels, small_blocks, kind):
    model, pixels = tiny_model(), random_pixels(2, 4, 5)
    mask = torch.randn(2, 1, 25, 25, generator=torch.Generator().manual_seed(0))
    mask = {"additive": mask, "boolean": mask > -1, "one row for all queries": mask[:, :, :1]}[kind]
    with torch.no_grad():
        expected = tokens(model, pixels, "sdpa", attention_mask=mask)
        assert largest_difference(expected, tokens(model, pixels, "sdpa")) > 1e-2
        for attn_implementation in ("eager", "alibi_blockwise"):
            actual = tokens(model, pixels, attn_implementation, attention_mask=mask)
            assert_close(actual, expected, 1e-5, f"{SAME_SUM}: {attn_implementation}")


@pytest.mark.parametrize("name", ["flash_attention_2", "flash_attention_3", "kernels-community/flash-attn", "fast"])
def test_an_unsupported_attention_is_refused_with_the_supported_ones(tiny_model, tiny_config, name):
    said = f"(?s)'{name}'.*'sdpa', 'eager', 'alibi_blockwise', 'flex_attention'.*FlashAttention.*no attention bias"
    with pytest.raises(ValueError, match=said):
        tiny_model(attn_implementation=name)
    with pytest.raises(ValueError, match=said):
        Dinov2AlibiModel(tiny_config(attn_implementation=name))
    model = tiny_model()
    with pytest.raises(ValueError, match=said):
        model.set_attn_implementation(name)
    assert model.config._attn_implementation == "sdpa"


def test_flash_attention_is_declared_unsupported(tiny_model):
    assert not tiny_model()._supports_flash_attn


def test_an_unsupported_attention_is_refused_when_loading(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'flash_attention_2'.*'sdpa', 'eager', 'alibi_blockwise'"):
        Dinov2AlibiModel.from_pretrained(tmp_path, attn_implementation="flash_attention_2")
    model = Dinov2AlibiModel.from_pretrained(tmp_path, attn_implementation="alibi_blockwise")
    assert model.config._attn_implementation == "alibi_blockwise"


@pytest.mark.parametrize("name", ["alibi_blockwise", "flex_attention"])
def test_jitter_is_refused_where_the_distances_are_never_held(tiny_model, name):
    said = f"(?s)`alibi_jitter` is 0.1, but '{name}'.*'sdpa' or 'eager', or set `alibi_jitter=0`"
    with pytest.raises(ValueError, match=said):
        tiny_model(attn_implementation=name, alibi_jitter=0.1)
    with pytest.raises(ValueError, match=said):
        tiny_model(alibi_jitter=0.1).set_attn_implementation(name)


def test_jitter_is_fresh_normal_noise_on_the_distances_of_each_layer(tiny_model, random_pixels, seen_biases):
    model = tiny_model(attn_implementation="eager", alibi_jitter=0.5, alibi_slopes="geometric", num_register_tokens=1)
    torch.manual_seed(3)
    model(random_pixels(1, 6, 7))
    slopes = slow_slopes("geometric", 3)
    bias = slow_bias((6, 7), slopes=slopes, num_prefix_tokens=2)
    noise = torch.stack([(seen - bias)[0] / -torch.tensor(slopes)[:, None, None] for seen in seen_biases])
    assert noise[:, :, :2].count_nonzero() == 0
    assert noise[:, :, :, :2].count_nonzero() == 0
    between_patches = noise[:, :, 2:, 2:]
    assert_close(between_patches[:, 1], between_patches[:, 0], 1e-4, "one draw for all heads; rounding over the slope")
    assert between_patches.std().item() == pytest.approx(0.5, rel=0.05)
    assert between_patches.mean().item() == pytest.approx(0, abs=0.03)
    for layer, other in ((0, 1), (0, 2), (1, 2)):
        assert largest_difference(between_patches[layer], between_patches[other]) > 0.5


def test_jitter_follows_the_seed(tiny_model, random_pixels):
    model, pixels = tiny_model(alibi_jitter=0.5), random_pixels(1, 3, 4)
    outputs = []
    with torch.no_grad():
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            outputs.append(model(pixels).last_hidden_state)
    assert_close(outputs[0], outputs[1], 0.0, "the same noise")
    assert largest_difference(outputs[0], outputs[2]) > 1e-2


def test_flex_declares_what_it_cannot_do(tiny_model, random_pixels, uncompiled_flex):
    pixels = random_pixels(1, 2, 2)
    model = tiny_model(attn_implementation="flex_attention")
    with pytest.raises(ValueError, match=r"no backward pass on a CPU.*'sdpa' or 'alibi_blockwise'"):
        model(pixels)
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"only masks of shape .batch, tokens.*'sdpa' or 'alibi_block"),
    ):
        model(pixels, attention_mask=torch.zeros(1, 1, 9, 9))
    model = tiny_model(attn_implementation="flex_attention", attention_probs_dropout_prob=0.1).train()
    with torch.no_grad(), pytest.raises(ValueError, match=r"attention dropout 0.1.*'sdpa' or 'alibi_blockwise'"):
        model(pixels)


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager", "alibi_blockwise"])
@pytest.mark.parametrize("slopes", ["constant", "learned"])
def test_attention_dropout_acts_in_training_only(tiny_model, random_pixels, attn_implementation, slopes):
    model = tiny_model(attn_implementation=attn_implementation, alibi_slopes=slopes, attention_probs_dropout_prob=0.5)
    pixels = random_pixels(1, 3, 4)
    with torch.no_grad():
        first, second = (model(pixels).last_hidden_state for _ in range(2))
        assert_close(first, second, 0.0, "no dropout in evaluation")
        model.train()
        first, second = (model(pixels).last_hidden_state for _ in range(2))
        assert largest_difference(first, second) > 1e-2
