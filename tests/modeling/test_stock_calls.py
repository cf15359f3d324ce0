# SPDX-License-Identifier: Apache-2.0
"""Whatever works on the stock DINOv2 works here: offloaded weights, other precisions, quantisation, PEFT, Trainer."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
    Trainer,
    TrainingArguments,
)

from modeling_alibi_dinov2 import (
    Dinov2AlibiBackbone,
    Dinov2AlibiForImageClassification,
    Dinov2AlibiForSemanticSegmentation,
    Dinov2AlibiModel,
)
from tests.comparison import assert_close, first_tensor
from tests.modeling.transformers_names import enable_checkpointing

SAME_WEIGHTS = "the same operations on the same weights"
MODELS = {
    "model": (Dinov2AlibiModel, {}),
    "model with learned slopes": (Dinov2AlibiModel, {"alibi_slopes": "learned"}),
    "backbone": (Dinov2AlibiBackbone, {}),
    "classification": (Dinov2AlibiForImageClassification, {}),
    "segmentation": (Dinov2AlibiForSemanticSegmentation, {}),
    "stock": (Dinov2WithRegistersModel, {}),  # the yardstick: what does not pass here is not asked of the others
}


@pytest.fixture(params=MODELS)
def model(request, tiny_model, tiny_teacher):
    """Each of the models, and the stock one, in evaluation mode."""
    model_class, overrides = MODELS[request.param]
    if model_class is Dinov2WithRegistersModel:
        return tiny_teacher()
    return tiny_model(model_class, num_hidden_layers=2, **overrides)


@pytest.fixture
def pixels(random_pixels):
    return random_pixels(2, 2, 3)


# --- weights that are elsewhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_weights_offloaded_by_accelerate(model, pixels, tmp_path, where):
    with torch.no_grad():
        expected = first_tensor(model(pixels))
        if where == "cpu":
            cpu_offload(model, execution_device=torch.device("cpu"))
        else:
            disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
        assert_close(first_tensor(model(pixels)), expected, 0.0, SAME_WEIGHTS)


@pytest.mark.parametrize("embeddings", ["cpu", "disk"])
def test_a_device_map_with_a_disk(model, pixels, tmp_path, embeddings):
    model.save_pretrained(tmp_path)
    names = [name for name, _ in model.named_children()]
    device_map = dict.fromkeys(names, "disk") | {names[0]: embeddings}
    loaded = type(model).from_pretrained(tmp_path, device_map=device_map, offload_folder=tmp_path / "weights")
    with torch.no_grad():
        assert_close(first_tensor(loaded(pixels)), first_tensor(model(pixels)), 0.0, SAME_WEIGHTS)


def test_a_model_without_data(model, pixels):
    with torch.device("meta"):
        shapes = type(model)(model.config)
    assert first_tensor(shapes(pixels.to("meta"))).shape == first_tensor(model(pixels)).shape


# --- other precisions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_single_precision_pixels_suit_weights_of_any_precision(model, pixels, dtype):
    model.to(dtype)
    with torch.no_grad():
        actual = first_tensor(model(pixels))
        assert actual.dtype == dtype
        assert_close(actual, first_tensor(model(pixels.to(dtype))), 0.0, "the pixels are converted first")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_pixels_of_any_precision_suit_single_precision_weights(model, pixels, dtype):
    with torch.no_grad():
        actual = first_tensor(model(pixels.to(dtype)))
        assert_close(actual, first_tensor(model(pixels.to(dtype).float())), 0.0, "the pixels are converted first")


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager", "alibi_blockwise"])
def test_layer_norms_may_keep_single_precision(tiny_model, pixels, attn_implementation):
    """As PEFT leaves them when it prepares a model in half precision."""
    model = tiny_model(attn_implementation=attn_implementation).bfloat16()
    with torch.no_grad():
        expected = model(pixels).last_hidden_state.float()
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.float()
                module.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(),))
                module.register_forward_hook(lambda module, inputs, output: output.bfloat16())
        model.embeddings.register_forward_hook(lambda module, inputs, output: output.float())
        actual = model(pixels).last_hidden_state.float()
    cosine = torch.nn.functional.cosine_similarity(actual, expected, dim=-1)
    assert cosine.min() > 0.99  # bfloat16 has 8 bits


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager", "alibi_blockwise"])
@pytest.mark.parametrize("slopes", ["constant", "learned"])
def test_a_single_precision_mask_suits_half_precision_weights(tiny_model, pixels, attn_implementation, slopes):
    model = tiny_model(attn_implementation=attn_implementation, alibi_slopes=slopes).bfloat16()
    kept = torch.ones(2, 11, dtype=torch.long)
    kept[:, -2:] = 0
    mask = torch.zeros(2, 1, 11, 11).masked_fill(kept[:, None, None] == 0, torch.finfo(torch.float32).min)
    with torch.no_grad():
        actual = model(pixels, attention_mask=mask).last_hidden_state
        expected = model(pixels, attention_mask=kept).last_hidden_state
    assert_close(actual[:, :-2].float(), expected[:, :-2].float(), 0.02, "bfloat16, the mask added or filled in")


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager", "alibi_blockwise"])
def test_a_mask_of_integers_is_refused(tiny_model, pixels, attn_implementation):
    model, mask = tiny_model(attn_implementation=attn_implementation), torch.ones(2, 1, 11, 11, dtype=torch.long)
    with pytest.raises(ValueError, match=r"dtype torch.int64; it must be boolean .*`mask.bool\(\)`"):
        model(pixels, attention_mask=mask)


def test_dynamic_quantisation(model, pixels):
    with torch.no_grad():
        expected = first_tensor(model(pixels))
        quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        actual = first_tensor(quantised(pixels))
    assert torch.nn.functional.cosine_similarity(actual.flatten(), expected.flatten(), dim=0) > 0.98  # 8 bits


# --- fine-tuning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_of_both_kinds(model, pixels, use_reentrant):
    model.train()
    enable_checkpointing(model, {"use_reentrant": use_reentrant})
    first_tensor(model(pixels.requires_grad_())).square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if name.endswith("q_proj.weight")}
    assert all(gradient is not None and gradient.count_nonzero() for gradient in gradients.values())


def test_low_rank_adapters(model, pixels, tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need PEFT")
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    first_tensor(adapted.train()(pixel_values=pixels)).square().mean().backward()
    trained = [name for name, parameter in adapted.named_parameters() if parameter.grad is not None]
    assert trained
    assert all("lora_" in name for name in trained)
    adapted.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        expected = first_tensor(adapted(pixel_values=pixels))
        merged = adapted.merge_and_unload()
        assert_close(first_tensor(merged(pixels)), expected, 1e-3, "products of small matrices added up beforehand")


def update_by_trainer(model, labels: torch.Tensor, batch_size: int, steps: int, folder) -> torch.Tensor:
    """What one step of `Trainer` with plain gradient descent adds to the weights; batches in order, no dropout."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(labels), 3, 28, 28, generator=generator)
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    class InOrder(Trainer):
        def _get_train_sampler(self, *args, **kwargs):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=steps,
        max_steps=1,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    data = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]
    InOrder(model, arguments, train_dataset=data).train()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - weights


def integers(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(0))


TASKS = {
    "segmentation": (Dinov2AlibiForSemanticSegmentation, 3, integers(3, 6, 28, 28)),
    "segmentation, 8-bit labels": (Dinov2AlibiForSemanticSegmentation, 3, integers(3, 6, 28, 28).to(torch.uint8)),
    "one class": (Dinov2AlibiForImageClassification, 3, integers(3, 6)),
    "several classes": (Dinov2AlibiForImageClassification, 3, integers(2, 6, 3).float()),
    "a value": (Dinov2AlibiForImageClassification, 1, integers(9, 6) / 9),
    "one class, stock": (Dinov2WithRegistersForImageClassification, 3, integers(3, 6)),
}


@pytest.mark.parametrize("task", TASKS)
def test_gradient_accumulation_makes_the_step_of_the_whole_batch(task, tiny_model, tiny_teacher, tmp_path):
    model_class, num_labels, labels = TASKS[task]

    def update(batch_size: int, steps: int) -> torch.Tensor:
        choices = {"num_hidden_layers": 1, "num_labels": num_labels, "initializer_range": 0.02}
        if model_class is Dinov2WithRegistersForImageClassification:
            model = tiny_teacher(model_class, Dinov2WithRegistersConfig, **choices)
        else:
            model = tiny_model(model_class, classifier_dropout=0.0, **choices)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # Statistics of a batch are those of its pieces; here the loss is what is compared.
                module.register_forward_pre_hook(lambda module, inputs: module.eval() and None)
        return update_by_trainer(model, labels, batch_size, steps, tmp_path)

    whole = update(6, 1)
    assert whole.abs().max() > 1e-3
    for batch_size, steps in ((2, 3), (4, 2)):  # the second leaves a smaller piece
        assert_close(update(batch_size, steps), whole, 1e-5, "the same gradients added up in pieces, float32")
