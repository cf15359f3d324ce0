# SPDX-License-Identifier: Apache-2.0
"""Dense features on disk or in memory, so that an image goes through a backbone once, whatever is done with them.

Those on disk are filed under the SHA-256 of all that they depend on: the image's pixels, the model, every setting and
the versions of the libraries. So nothing ever has to be invalidated, and several processes may share a folder. What was
not used for longest goes when the folder has grown beyond its limit.
"""

import hashlib
import json
import mmap
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from threading import Condition
from typing import Any

import numpy as np
import torch
from huggingface_hub.constants import HF_HOME
from PIL import Image

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.half_precision import half
from alibi_dinov2.io.tensor_store import TensorStore

DEFAULT_FOLDER = Path(HF_HOME) / "alibi_dinov2" / "features"
DEFAULT_LIMIT = 20 * 2**30  # bytes: some 20,000 images at 518 px through a ViT-S
LIBRARIES = ("numpy", "pillow", "torch", "transformers")  # that features depend on
ROOM = 16  # a folder above its limit is cut to one part in so many less
PAGES = 2**18  # bytes of an array that is worth memory pages of its own
ABANDONED = 3600  # seconds after which a half-written file is that of a process that was killed


def backbone_fingerprint(backbone: Backbone) -> str:
    """SHA-256 over class, configuration, weights, dtype, normalisation and removal of a backbone, in hexadecimal.

    It is the same wherever the weights lie and whatever the version of Transformers.
    """
    model, processor, removal = backbone.model, backbone.processor, backbone.removal
    config = {
        name: value
        for name, value in model.config.to_dict().items()
        if name not in ("_name_or_path", "transformers_version")
    }
    facts = {
        "model": [type(model).__name__, config, backbone.weights_sha256, str(model.dtype)],
        "normalisation": [list(processor.image_mean), list(processor.image_std)],
        "removal": removal and [removal.name, removal.parameters],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


class FeatureCache:
    """Features of images in a folder, in half precision, one file each.

    A file is written whole or not at all, and holds its own checksum: one that is damaged later counts as missing.

    Args:
        folder: made when something is first stored. It may be removed at any time.
        limit: bytes that the files may take. Beyond it, those that were neither stored nor loaded for longest are
            removed, whichever process they are of. A process looks after each sixteenth of the limit that it has
            stored, so that several of them may exceed it by as much each.

    Raises:
        ValueError: the limit is below 0.
    """

    def __init__(self, folder: str | Path, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 0:
            raise ValueError(f"The limit of a feature cache is {limit} bytes; it must be 0 or more.")
        self.folder, self.limit = Path(folder), limit
        self.files = TensorStore(folder)
        self.unchecked = limit  # bytes stored since the folder was last looked through: the first time, look

    @staticmethod
    def key(fingerprint: str, image: Image.Image, **settings: Any) -> str:
        """What features are filed under.

        Args:
            fingerprint: of the backbone.
            image: that the features are of.
            settings: everything else that they depend on, such as `size` and `layers`; JSON values.
        """
        versions = {name: version(name) for name in LIBRARIES}
        identity = json.dumps([fingerprint, image.mode, settings, versions], sort_keys=True)
        return TensorStore.key(torch.from_numpy(np.array(image)), identity)

    def store(self, key: str, features: np.ndarray) -> None:
        """Keep an array of finite numbers.

        Raises:
            ValueError: half precision cannot hold it.
            OSError: the disk is full or the folder cannot be written to.
        """
        array = torch.from_numpy(half(features))
        self.files.write(key, {"features": array, "checksum": checksum(array)})
        self.unchecked += array.nbytes
        if self.unchecked >= self.limit // ROOM:
            self.prune()

    def load(self, key: str) -> np.ndarray | None:
        """An array as float32, or `None` if it is not there or damaged."""
        tensors = self.files.read(key) or {}
        if tensors.keys() != {"features", "checksum"}:
            return None
        if not torch.equal(tensors["checksum"], checksum(tensors["features"])):
            return None
        with suppress(OSError):  # another process has removed it meanwhile, or the folder is read-only
            os.utime(self.files.path(key))
        return tensors["features"].numpy().astype(np.float32)

    def get(self, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """An array as float32, computed and stored if it is not there; rounded to half precision either way."""
        if (found := self.load(key)) is not None:
            return found
        features = compute()
        self.store(key, features)
        return half(features).astype(np.float32)

    def prune(self) -> None:
        """Remove the files that were not used for longest, if all together are larger than the limit; and what killed
        processes have left half-written."""
        found, now = [], time.time()
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*.safetensors"):
            with suppress(FileNotFoundError):  # removed by another process
                facts = path.stat()
                if not path.name.startswith("."):
                    found.append((facts.st_mtime, facts.st_size, path))
                elif now - facts.st_mtime > ABANDONED:
                    path.unlink()
        self.unchecked, total = 0, sum(size for _, size, _ in found)
        allowed = self.limit - self.limit // ROOM if total > self.limit else total
        for _, size, path in sorted(found):
            if total <= allowed:
                break
            path.unlink(missing_ok=True)
            total -= size


class MemoryCache:
    """Arrays in memory under keys of any kind; those that were not asked for longest go first. Threads may share it.

    Args:
        limit: bytes that are kept at most.

    Attributes:
        bytes: that are kept.
        largest: bytes of the largest array that was to be kept so far.
    """

    def __init__(self, limit: int = 2**29) -> None:
        self.limit, self.bytes, self.largest = limit, 0, 0
        self.arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self.computing: set[Hashable] = set()
        self.changed = Condition()

    def get(self, key: Hashable, compute: Callable[[], np.ndarray], keep: bool = True) -> np.ndarray:
        """An array, computed if it is not there, by one thread while others that want it wait.

        Args:
            key: of the array.
            compute: makes it.
            keep: whether to keep it.

        Returns:
            The array, not to be written to.
        """
        with self.changed:
            self.changed.wait_for(lambda: key not in self.computing)
            if key in self.arrays:
                self.arrays.move_to_end(key)
                return self.arrays[key]
            self.computing.add(key)
        try:
            found = compute()
            return self.put(key, found) if keep else found
        finally:
            with self.changed:
                self.computing.discard(key)
                self.changed.notify_all()

    def put(self, key: Hashable, array: np.ndarray) -> np.ndarray:
        """Keep an array, and forget others if there is no room; the array that is kept, not to be written to."""
        self.largest = max(self.largest, array.nbytes)
        if array.nbytes > self.limit:
            return array
        array = in_pages(array)
        with self.changed:
            self.discard(key)
            self.arrays[key] = array
            self.bytes += array.nbytes
            while self.bytes > self.limit:
                self.discard(next(iter(self.arrays)))
        return array

    def discard(self, key: Hashable) -> None:
        """Forget an array, if it is there."""
        with self.changed:
            forgotten = self.arrays.pop(key, None)
            if forgotten is not None:
                self.bytes -= forgotten.nbytes

    def __contains__(self, key: Hashable) -> bool:
        with self.changed:
            return key in self.arrays


def in_pages(array: np.ndarray) -> np.ndarray:
    """A copy in memory pages of its own, which go back to the operating system when it is forgotten.

    Where an allocator places what is kept among what is not, little of it does: a process that keeps 1 GB for long
    while blocks come and go had 2.8 GB.
    """
    if array.nbytes < PAGES:
        return array
    copy = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """SHA-256 of a tensor's bytes, `(32,)` uint8."""
    return torch.tensor(list(hashlib.sha256(tensor.numpy().tobytes()).digest()), dtype=torch.uint8)
