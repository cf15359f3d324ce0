# SPDX-License-Identifier: Apache-2.0
"""Dense features on disk or in memory, so that an image goes through a backbone once, whatever is done with them.

Those on disk are filed under the SHA-256 of all that they depend on: the image's pixels, the model and every setting.
So nothing ever has to be invalidated, and several processes may share a folder.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.constants import HF_HOME
from PIL import Image

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.weights import weights_sha256
from alibi_dinov2.io.tensor_store import TensorStore

DEFAULT_FOLDER = Path(HF_HOME) / "alibi_dinov2" / "features"


def backbone_fingerprint(backbone: Backbone) -> str:
    """SHA-256 over class, configuration, weights, normalisation and removal of a backbone, in hexadecimal."""
    model, processor, removal = backbone.model, backbone.processor, backbone.removal
    config = model.config.to_dict()
    config.pop("_name_or_path", None)
    facts = {
        "model": [type(model).__name__, config, weights_sha256(model)],
        "normalisation": [list(processor.image_mean), list(processor.image_std)],
        "removal": removal and [removal.name, removal.parameters],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


class FeatureCache:
    """Features of images in a folder, in half precision, one file each.

    A file is written whole or not at all, and holds its own checksum: one that is damaged later counts as missing.

    Args:
        folder: made when something is first stored. It may be removed at any time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.files = TensorStore(folder)

    @staticmethod
    def key(fingerprint: str, image: Image.Image, **settings: Any) -> str:
        """What features are filed under.

        Args:
            fingerprint: of the backbone.
            image: that the features are of.
            settings: everything else that they depend on, such as `size` and `layers`; JSON values.
        """
        identity = json.dumps([fingerprint, image.mode, settings], sort_keys=True)
        return TensorStore.key(torch.from_numpy(np.array(image)), identity)

    def store(self, key: str, features: np.ndarray) -> None:
        """Keep an array of finite numbers.

        Raises:
            ValueError: half precision cannot hold it.
            OSError: the disk is full or the folder cannot be written to.
        """
        limit = np.finfo(np.float16).max
        if not np.abs(features).max(initial=0) <= limit:
            raise ValueError(f"Features that are not finite, or beyond ±{limit}, cannot be kept in half precision.")
        half = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float16))
        self.files.write(key, {"features": half, "checksum": checksum(half)})

    def load(self, key: str) -> np.ndarray | None:
        """An array as float32, or `None` if it is not there or damaged."""
        tensors = self.files.read(key) or {}
        if tensors.keys() != {"features", "checksum"}:
            return None
        intact = torch.equal(tensors["checksum"], checksum(tensors["features"]))
        return tensors["features"].numpy().astype(np.float32) if intact else None

    def get(self, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """An array as float32, computed and stored if it is not there; rounded to half precision either way."""
        if (found := self.load(key)) is not None:
            return found
        features = compute()
        self.store(key, features)
        return features.astype(np.float16).astype(np.float32)


class MemoryCache:
    """Arrays in memory under keys of any kind; those that were not asked for longest go first.

    Args:
        limit: bytes that are kept at most.
    """

    def __init__(self, limit: int = 2**29) -> None:
        self.limit, self.bytes = limit, 0
        self.arrays: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """An array, computed and kept if it is not there. It is not to be written to."""
        if key not in self.arrays:
            self.arrays[key] = compute()
            self.bytes += self.arrays[key].nbytes
        self.arrays.move_to_end(key)
        found = self.arrays[key]
        while self.bytes > self.limit:
            _, forgotten = self.arrays.popitem(last=False)
            self.bytes -= forgotten.nbytes
        return found


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """SHA-256 of a tensor's bytes, `(32,)` uint8."""
    return torch.tensor(list(hashlib.sha256(tensor.numpy().tobytes()).digest()), dtype=torch.uint8)
