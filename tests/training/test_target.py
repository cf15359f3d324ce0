# SPDX-License-Identifier: Apache-2.0
"""What the student is to match: kinds of token, their weights, the mean over turns, and the cache."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from alibi_dinov2.io.tensor_store import TensorStore
from training.configuration import Stage
from training.distill import distill
from training.distillation import learning_rate_at
from training.journal import read_metrics
from training.target import PATCHES, Target, TokenWeights, in_low_precision, normalise, read_tokens, token_losses

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
ALL = [PATCHES, "class_token", "registers", "layer_2"]
LONG = [Stage(28, 6, None, 4, 1e-3, 2), Stage(42, 4, None, 2, 5e-4, 1, layer_weight=0.5)]


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (3, 3, 42, 42), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target(tiny_teacher):
    """`target(**options)` of a tiny teacher with four registers; channels 1 and 5 are put to zero."""
    keep = torch.ones(48)
    keep[[1, 5]] = 0
    return lambda **options: Target(tiny_teacher(), keep, MEAN, STD, **options)


def test_tokens_are_those_of_the_model(target, pixels):
    made = target()
    outputs = made.teacher(normalise(pixels, MEAN, STD), output_hidden_states=True)
    tokens = made(pixels, ALL)
    assert list(tokens) == ALL
    assert torch.equal(tokens["class_token"], outputs.last_hidden_state[:, :1])
    assert torch.equal(tokens["registers"], outputs.last_hidden_state[:, 1:5])
    assert torch.equal(tokens["layer_2"], outputs.hidden_states[2][:, 5:])
    expected = outputs.last_hidden_state[:, 5:].clone()
    expected[..., [1, 5]] = 0
    assert torch.equal(tokens[PATCHES], expected)


def test_target_can_be_kept_for_the_backward_pass(target, pixels):
    student = torch.randn(3, 9, 48, requires_grad=True)
    token_losses({PATCHES: student}, target()(pixels, [PATCHES]), {PATCHES: 1.0})[0].backward()
    assert (student.grad.abs().sum(dim=-1) > 0).all()


def test_only_weighted_tokens_are_asked_for():
    assert TokenWeights().by_name() == {PATCHES: 1.0}
    weights = TokenWeights(class_token=0.5, layers=(1, 3), layer=3.0).by_name()
    assert weights == {PATCHES: 1.0, "class_token": 0.5, "layer_1": 1.5, "layer_3": 1.5}
    assert TokenWeights(layers=(1, 3), layer=0.0).by_name() == {PATCHES: 1.0}


def test_hidden_states_are_asked_for_only_where_they_are_used(tiny_teacher, pixels):
    teacher, asked = tiny_teacher(), []
    teacher.register_forward_pre_hook(lambda module, args, options: asked.append(set(options)), with_kwargs=True)
    for names in ([PATCHES], [PATCHES, "layer_1"]):
        read_tokens(teacher, normalise(pixels, MEAN, STD), names, 5)
    assert asked == [{"pixel_values"}, {"pixel_values", "output_hidden_states"}]


def test_loss_is_the_weighted_sum():
    generator = torch.Generator().manual_seed(0)
    first, second = ({name: torch.randn(2, 3, 8, generator=generator) for name in "ab"} for _ in range(2))
    total, parts = token_losses(first, second, {"a": 1.0, "b": 0.25})
    assert total.item() == pytest.approx(parts["a"].item() + 0.25 * parts["b"].item(), rel=1e-6)
    assert token_losses(first, first, {"a": 1.0, "b": 1.0})[0].item() == pytest.approx(0, abs=1e-6)


def test_averaged_target_turns_with_the_crop_and_holds_no_other_position(target, pixels):
    plain, averaged = target(), target(average=True)

    def turned_back(made, flip, turns):
        seen = torch.rot90(pixels.flip(-1) if flip else pixels, turns, (-2, -1))
        tokens = made(seen, ALL)
        grid = torch.rot90(tokens[PATCHES].unflatten(1, (3, 3)), -turns, (1, 2))
        return (grid.flip(2) if flip else grid).flatten(1, 2), tokens["class_token"]

    views = [(flip, turns) for flip in (False, True) for turns in range(4)]
    by_hand = torch.stack([turned_back(plain, *view)[0] for view in views]).mean(0)
    class_tokens = torch.stack([turned_back(plain, *view)[1] for view in views]).mean(0)
    found = averaged(pixels, ALL)
    # Means of eight float32 values, added up in another order.
    torch.testing.assert_close(found[PATCHES], by_hand, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["class_token"], class_tokens, rtol=1e-5, atol=1e-5)
    for view in views:
        torch.testing.assert_close(turned_back(averaged, *view)[0], found[PATCHES], rtol=1e-5, atol=1e-5)
    assert (turned_back(plain, True, 0)[0] - plain(pixels, ALL)[PATCHES]).abs().max() > 0.01


def test_stored_targets_are_found_again_and_rounded_to_half_precision(target, pixels, tmp_path):
    store = TensorStore(tmp_path)
    made = target(store=store, identity="weights")
    first = made(pixels, ALL)
    made.compute = None  # whoever computes now fails
    again = made(pixels, ALL)
    exact = target()(pixels, ALL)
    for name in ALL:
        assert torch.equal(first[name], again[name])
        # Half precision has eleven bits.
        torch.testing.assert_close(first[name].float(), exact[name], rtol=2**-10, atol=1e-4)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3
    for other in (target(store=store, identity="other"), target(store=store, identity="weights", average=True)):
        other(pixels, ALL)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 9


def test_stored_targets_are_read_under_autocast(target, pixels, tmp_path):
    made = target(store=TensorStore(tmp_path))
    with torch.autocast("cpu", torch.bfloat16):
        first = made(pixels, ALL)
        assert all(torch.equal(first[name], again) for name, again in made(pixels, ALL).items())


def test_one_missing_crop_changes_nothing_for_the_others(target, pixels, tmp_path):
    made = target(store=TensorStore(tmp_path))
    first = made(pixels, [PATCHES])
    path = next(tmp_path.rglob("*.safetensors"))
    kept = {other: other.read_bytes() for other in tmp_path.rglob("*.safetensors") if other != path}
    path.unlink()
    assert torch.equal(made(pixels, [PATCHES])[PATCHES], first[PATCHES])
    assert {other: other.read_bytes() for other in kept} == kept


def test_low_precision_weights_change_no_result_under_autocast(tiny_teacher, pixels):
    seen = normalise(pixels, MEAN, STD)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = tiny_teacher()(seen).last_hidden_state
        found = in_low_precision(tiny_teacher(), torch.bfloat16)(seen).last_hidden_state
    assert torch.equal(found, expected)


def test_all_kinds_of_token_are_learned_and_reported(tiny_distillation, tiny_model, student_folder, tmp_path):
    # Not the teacher's own weights, whose class token and registers are right to begin with.
    tiny_model(seed=5, num_register_tokens=4).save_pretrained(student_folder)
    stages = [Stage(28, 40, None, 8, 2e-3, 3, layer_weight=1.0)]
    distill(tiny_distillation(stages=stages, layers=[1, 3], class_token_weight=0.5, register_weight=0.5))
    metrics = [entry for entry in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in entry]
    for name in ("loss_patches", "loss_class_token", "loss_registers", "loss_layer_1", "loss_layer_3"):
        assert metrics[-1][name] < 0.9 * metrics[0][name], name


def test_layers_count_in_the_stages_that_say_so(tiny_distillation, tmp_path):
    stages = [Stage(28, 2, None, 4, 1e-3, 0, layer_weight=2.0), Stage(28, 2, None, 4, 1e-3, 0, layer_weight=0.0)]
    distill(tiny_distillation(stages=stages, layers=[2]))
    metrics = {entry["step"]: entry for entry in read_metrics(tmp_path / "run" / "metrics.jsonl")}
    assert metrics[2]["loss"] == pytest.approx(metrics[2]["loss_patches"] + 2 * metrics[2]["loss_layer_2"], rel=1e-5)
    assert "loss_layer_2" not in metrics[3]


def test_cached_run_resumed_is_the_uninterrupted_run_bit_for_bit(tiny_distillation, tmp_path, monkeypatch):
    options = {"stages": LONG, "layers": [1], "average_transforms": True, "crop": "center", "checkpoint_every": 2}
    weights = []
    for name in ("whole", "broken"):
        config = tiny_distillation(output=str(tmp_path / name), target_cache=str(tmp_path / f"{name}-cache"), **options)
        if name == "broken":
            with monkeypatch.context() as patch:
                patch.setattr("training.distillation.learning_rate_at", failing_at(5))
                with pytest.raises(KeyboardInterrupt):
                    distill(config)
            config = replace(config, resume=True)
        weights.append(load_file(distill(config) / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def failing_at(step):
    """`learning_rate_at`, interrupted at a step."""

    def rate(stages, number):
        if number == step:
            raise KeyboardInterrupt
        return learning_rate_at(stages, number)

    return rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [4]}, r"layers is \[4\]; the teacher has layers 1 to 3"),
        ({"layers": [0]}, r"layers is \[0\]; the teacher has layers 1 to 3"),
        ({"class_token_weight": -1.0}, r"class_token_weight is -1\.0; it must be 0 or more"),
        ({"register_weight": float("nan")}, "register_weight is nan; it must be 0 or more"),
    ],
)
def test_tokens_that_do_not_exist_are_refused(tiny_distillation, change, message):
    with pytest.raises(ValueError, match=message):
        distill(tiny_distillation(**change))


def test_registers_of_a_teacher_without_are_refused():
    with pytest.raises(ValueError, match="the teacher has no registers"):
        TokenWeights(registers=1.0).require_in(layers=12, registers=0)
