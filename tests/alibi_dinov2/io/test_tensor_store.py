# SPDX-License-Identifier: Apache-2.0
"""What was computed is found again under its own key only, and damage is not taken for it."""

import torch

from alibi_dinov2.io.tensor_store import TensorStore


def test_tensors_are_read_as_they_were_written(tmp_path):
    store = TensorStore(tmp_path / "store")
    content = torch.arange(12, dtype=torch.uint8).reshape(3, 4)
    key = store.key(content, "teacher")
    assert store.read(key) is None
    assert not store.folder.exists()
    tensors = {"a": torch.randn(2, 3).half(), "b": torch.arange(4)}
    store.write(key, tensors)
    found = TensorStore(tmp_path / "store").read(key)
    assert found is not None
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert [path for path in store.folder.rglob("*") if path.is_file()] == [store.path(key)]


def test_key_tells_content_shape_dtype_and_identity_apart():
    content = torch.arange(12, dtype=torch.uint8).reshape(3, 4)
    others = [content + 1, content.reshape(4, 3), content.to(torch.int8)]
    keys = {TensorStore.key(content, "one"), TensorStore.key(content, "two")}
    keys |= {TensorStore.key(other, "one") for other in others}
    assert len(keys) == 5
    assert TensorStore.key(content.t().contiguous().t(), "one") in keys


def test_damaged_file_is_as_good_as_none_and_is_written_anew(tmp_path):
    store = TensorStore(tmp_path)
    key = store.key(torch.zeros(1), "")
    store.write(key, {"a": torch.ones(100)})
    path = store.path(key)
    path.write_bytes(path.read_bytes()[:-50])
    assert store.read(key) is None
    store.write(key, {"a": torch.ones(100)})
    assert torch.equal(store.read(key)["a"], torch.ones(100))
