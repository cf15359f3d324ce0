# SPDX-License-Identifier: Apache-2.0
from functools import partial

import pytest
import torch
from torch.export import Dim

from modeling_alibi_dinov2 import (
    Dinov2AlibiBackbone,
    Dinov2AlibiForImageClassification,
    Dinov2AlibiForSemanticSegmentation,
)
from tests.comparison import assert_close, first_tensor

OTHER_KERNELS = "other kernels for the same operations, float32"
DYNAMIC = {"pixel_values": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
TRACED_AT = (2, 4, 5)
NOT_TRACED_AT = [(1, 3, 6), (3, 7, 2)]

VARIANTS = [
    {},
    {"alibi_slopes": "learned", "num_register_tokens": 0, "patch_stride": 7},
    {"alibi_slopes": "geometric", "alibi_metric": "manhattan", "alibi_wrap": False, "alibi_normalize": False},
    {"position_encoding": "none"},
]


@pytest.fixture
def tiny_model(tiny_model):
    """The fixture of all tests with one layer, for the time that tracing takes."""
    return partial(tiny_model, num_hidden_layers=1)


@pytest.fixture(autouse=True)
def without_gradients():
    """Exported models infer. With gradients, the learned slopes would lead the tracing along another SDPA kernel."""
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


# --- torch.compile --------------------------------------------------------------------------------------------------


def test_compiled_code_is_one_graph_for_every_size(tiny_model, random_pixels):
    model = tiny_model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in (TRACED_AT, (3, 6, 2), (2, 3, 3)):
            pixels = random_pixels(*size)
            assert_close(compiled(pixels).last_hidden_state, model(pixels).last_hidden_state, 1e-5, OTHER_KERNELS)


@pytest.mark.parametrize("overrides", VARIANTS)
def test_a_full_graph_is_captured(tiny_model, random_pixels, overrides):
    model, pixels = tiny_model(**overrides), random_pixels(1, 2, 3)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_close(compiled(pixels).last_hidden_state, model(pixels).last_hidden_state, 1e-5, OTHER_KERNELS)


@pytest.mark.parametrize(
    "head_class", [Dinov2AlibiBackbone, Dinov2AlibiForImageClassification, Dinov2AlibiForSemanticSegmentation]
)
def test_a_full_graph_is_captured_of_a_head(tiny_model, random_pixels, head_class):
    model, pixels = tiny_model(head_class, num_labels=3), random_pixels(1, 2, 3)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_close(first_tensor(compiled(pixels)), first_tensor(model(pixels)), 1e-5, OTHER_KERNELS)


@pytest.mark.parametrize("slopes", ["constant", "learned"])
def test_gradients_through_a_full_graph(tiny_model, random_pixels, slopes):
    pixels, gradients = random_pixels(2, 2, 3), []
    with torch.enable_grad():
        for compile_it in (False, True):
            model = tiny_model(alibi_slopes=slopes).train()
            forward = torch.compile(model, fullgraph=True, backend="aot_eager") if compile_it else model
            output = forward(pixels).last_hidden_state
            (output * torch.linspace(-1, 1, output.numel()).view_as(output)).mean().backward()
            gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, 1e-5, f"{OTHER_KERNELS}: {name}")


# --- torch.export ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", VARIANTS)
def test_an_exported_program_takes_any_batch_height_and_width(tiny_model, random_pixels, overrides):
    model = tiny_model(**overrides)
    program = torch.export.export(model, (), {"pixel_values": random_pixels(*TRACED_AT)}, dynamic_shapes=DYNAMIC)
    for size in NOT_TRACED_AT:
        pixels = random_pixels(*size)
        actual = program.module()(pixel_values=pixels).last_hidden_state
        assert_close(actual, model(pixels).last_hidden_state, 1e-5, OTHER_KERNELS)


@pytest.mark.parametrize(
    "head_class", [Dinov2AlibiBackbone, Dinov2AlibiForImageClassification, Dinov2AlibiForSemanticSegmentation]
)
def test_an_exported_head_takes_any_batch_height_and_width(tiny_model, random_pixels, head_class):
    model = tiny_model(head_class, num_labels=3)
    program = torch.export.export(model, (), {"pixel_values": random_pixels(*TRACED_AT)}, dynamic_shapes=DYNAMIC)
    for size in NOT_TRACED_AT:
        pixels = random_pixels(*size)
        actual = first_tensor(program.module()(pixel_values=pixels))
        assert_close(actual, first_tensor(model(pixels)), 1e-5, OTHER_KERNELS)


def test_the_exporter_of_transformers_with_dynamic_sizes(tiny_model, random_pixels):
    exporters = pytest.importorskip("transformers.exporters", reason="this Transformers has no exporters")
    model = tiny_model()
    exported = exporters.DynamoExporter().export(
        model, {"pixel_values": random_pixels(*TRACED_AT)}, config=exporters.DynamoConfig(dynamic=True)
    )
    if isinstance(exported, torch.export.ExportedProgram):  # older releases of Transformers return it bare
        exported = exported.module()
    for size in NOT_TRACED_AT:
        pixels = random_pixels(*size)
        actual = exported(pixel_values=pixels).last_hidden_state
        assert_close(actual, model(pixels).last_hidden_state, 1e-5, OTHER_KERNELS)


# --- ONNX -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", VARIANTS[:2])
def test_onnx_agrees_at_sizes_it_was_not_traced_at(tiny_model, random_pixels, tmp_path, overrides):
    pytest.importorskip("onnxscript", reason="exporting to ONNX needs the extra 'onnx'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="running ONNX needs the extra 'onnx'")
    model = tiny_model(**overrides)
    torch.onnx.export(
        model,
        (random_pixels(*TRACED_AT),),
        tmp_path / "model.onnx",
        dynamo=True,
        dynamic_shapes=DYNAMIC,
        input_names=["pixel_values"],
        output_names=["last_hidden_state", "pooler_output"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for size in NOT_TRACED_AT:
        pixels = random_pixels(*size)
        tokens, pooled = session.run(["last_hidden_state", "pooler_output"], {"pixel_values": pixels.numpy()})
        expected = model(pixels)
        assert_close(tokens, expected.last_hidden_state, 2e-5, OTHER_KERNELS)
        assert_close(pooled, expected.pooler_output, 2e-5, OTHER_KERNELS)
