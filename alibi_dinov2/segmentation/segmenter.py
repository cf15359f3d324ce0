# SPDX-License-Identifier: Apache-2.0
"""From a few scribbles to a mask: features of pixels -> classifier (arXiv 2603.16840, section S8.3).

segmenter = TrainableSegmenter(load_backbone("alibi-dinov2-small"))
mask = segmenter.fit(image, scribbles).predict(image)
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from alibi_dinov2.features.backbone import Backbone, load_backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import DeepFeatures, Reduction
from alibi_dinov2.features.feature_cache import FeatureCache, MemoryCache
from alibi_dinov2.io.files import new_folder, sha256_of, write_json
from alibi_dinov2.io.image_regions import ImageRegions, Images, as_images, read_reflected
from alibi_dinov2.io.labels import as_label_maps
from alibi_dinov2.io.tiles import Block, blocks
from alibi_dinov2.segmentation.labelled_pixels import choose_pixels, find_classes
from alibi_dinov2.segmentation.pixel_classifiers import CLASSIFIERS, fit_classifier, load_classifier

BLOCK = 512  # side in pixels of what is classified at once: features of a hundred channels take 105 MB
DEEP_SETTINGS = ("components", "window", "overlap", "shifts", "per_image")
SETTINGS, REDUCTION = "segmenter.json", "reduction.safetensors"
LIBRARIES = ("numpy", "scikit-image", "scikit-learn", "torch", "transformers", "xgboost")


class TrainableSegmenter:
    """A classifier of pixels that learns from sparse labels, in the manner of scikit-learn.

    An image is an array `(H, W)` or `(H, W, C)`, a PIL image, or something that regions are read from, such as
    `image_files.open_image` gives for files that do not fit in memory.

    Args:
        backbone: for deep features, from `load_backbone`; none for classical features alone.
        classical: which classical features; none for deep features alone.
        classifier: one of `CLASSIFIERS`.
        components, window, overlap, shifts, per_image: of the deep features, see `DeepFeatures`.
        max_pixels: labelled pixels that the classifier learns from; if there are more, so many are drawn.
        cache: for the backbone's features; with a `FeatureCache` they are kept on disk, otherwise in memory.
        class_names: one for each class, in the order of their numbers.
        seed: of everything random.
        progress: whether to show bars.

    Attributes:
        classes_: numbers of the classes that were found in the labels, ascending, `(K,)` uint8.
        colour_: whether an image to learn from had colours; if not, images are seen in grey.
        reduction_: of the deep features, fitted on the images to learn from; none without a backbone.
        classifier_: what was fitted.
        identity: SHA-256 of all that predictions depend on, once it was saved or loaded.

    Raises:
        ValueError: no features are left, or a setting is out of range.
    """

    def __init__(
        self,
        backbone: Backbone | None = None,
        classical: ClassicalFeatures | None = ClassicalFeatures(),  # noqa: B008 - it cannot change
        classifier: str = "xgboost",
        components: int = DeepFeatures.components,
        window: int = DeepFeatures.window,
        overlap: int = DeepFeatures.overlap,
        shifts: int = DeepFeatures.shifts,
        per_image: bool = DeepFeatures.per_image,
        max_pixels: int = 50_000,
        cache: FeatureCache | MemoryCache | None = None,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        if backbone is None and classical is None:
            raise ValueError("There is neither a backbone nor classical features; give one of them, or both.")
        if classifier not in CLASSIFIERS:
            raise ValueError(f"The classifier is {classifier!r}; it must be one of {', '.join(CLASSIFIERS)}.")
        if max_pixels < 2:
            raise ValueError(f"max_pixels is {max_pixels}; it must be 2 or more.")
        self.deep = DeepFeatures(backbone, components, window, overlap, shifts, per_image) if backbone else None
        self.classical, self.classifier, self.max_pixels = classical, classifier, max_pixels
        self.class_names, self.seed, self.progress = class_names, seed, progress
        self.cache = MemoryCache() if cache is None else cache
        # Of the blocks that have labels: a few more strokes on the same image are then learned within seconds.
        self.block_cache = MemoryCache()
        self.reduction_: Reduction | None = None
        self.identity: str | None = None

    def fit(self, images: Images, labels: np.ndarray | Sequence[np.ndarray]) -> "TrainableSegmenter":
        """Learn from labelled pixels. What was computed for an image before is not computed again.

        Args:
            images: one or several, of any sizes.
            labels: for each image `(H, W)`, for a stack `(slices, H, W)`: 0 unlabelled, 1 to 255 classes. Images
                without labels help to find the principal components.

        Raises:
            ValueError: the labels do not fit the images or are no labels, or fewer than two classes are marked.
        """
        sources = as_images(images)
        pages = [(source, index) for source in sources for index in range(source.slices)]
        labels = as_label_maps(labels, sources)
        classes = find_classes(labels)
        if self.class_names is not None and len(self.class_names) != len(classes):
            raise ValueError(
                f"There are {len(self.class_names)} class names for classes {classes.tolist()}; give one each."
            )
        places = choose_pixels(labels, self.max_pixels, self.seed)
        # Wrong labels leave what was learned before; a failure further on leaves nothing, rather than half of it.
        vars(self).pop("classifier_", None)
        self.classes_, self.identity = classes, None
        self.colour_ = any(
            has_colour(source.read(index, *block))
            for (source, index), pixels in zip(pages, places, strict=True)
            for block, _ in by_block(source.shape, pixels)
        )
        if self.deep:
            self.reduction_ = self.deep.fit(sources, self.cache, self.progress)
        features = [
            part
            for (source, index), pixels in zip(pages, places, strict=True)
            for part in self.labelled_features(source, index, pixels)
        ]
        targets = [
            image[tuple(pixels[chosen].T)]
            for (source, _), image, pixels in zip(pages, labels, places, strict=True)
            for _, chosen in by_block(source.shape, pixels)
        ]
        self.classifier_ = fit_classifier(
            self.classifier,
            np.concatenate(features),
            np.searchsorted(self.classes_, np.concatenate(targets)),
            len(self.classes_),
            self.seed,
        )
        return self

    def predict(self, image: np.ndarray | Image.Image | ImageRegions) -> np.ndarray:
        """The class of every pixel, `(H, W)` uint8, of `classes_`; of a stack, of its first slice."""
        probabilities = self.predict_proba(image)
        return self.classes_[probabilities.argmax(axis=-1)]

    def predict_proba(self, image: np.ndarray | Image.Image | ImageRegions) -> np.ndarray:
        """Probabilities of the classes, `(H, W, K)` float32, in the order of `classes_`."""
        self.require_fitted()
        (source,) = as_images(image)
        probabilities = np.empty((*source.shape, len(self.classes_)), dtype=np.float32)
        for _, block, part in self.predict_blocks(source):
            probabilities[block] = part
        return probabilities

    def predict_blocks(
        self, image: ImageRegions, index: int = 0, skip: Callable[[int], bool] | None = None
    ) -> Iterator[tuple[int, Block, np.ndarray]]:
        """Probabilities of an image of any size, block by block: number, rows and columns, `(h, w, K)` float32.

        Args:
            image: that regions are read from.
            index: of the slice.
            skip: tells of a block's number whether it is not wanted.

        Raises:
            ValueError: the segmenter was not fitted.
        """
        self.require_fitted()
        wanted = [
            (number, block) for number, block in enumerate(blocks(image.shape, BLOCK)) if not (skip and skip(number))
        ]
        grid = self.deep_grid(image, index) if wanted else None
        for number, block in wanted:
            features = self.block_features(image, index, block, grid)
            flat = self.classifier_.predict_proba(features.reshape(-1, features.shape[-1]))
            yield number, block, flat.reshape(*features.shape[:2], -1)

    def pixel_features(self, image: np.ndarray | Image.Image | ImageRegions) -> np.ndarray:
        """What the classifier sees of every pixel, `(H, W, F)` float32; the segmenter must be fitted."""
        self.require_fitted()
        (source,) = as_images(image)
        grid = self.deep_grid(source, 0)
        parts = [(block, self.block_features(source, 0, block, grid)) for block in blocks(source.shape, BLOCK)]
        features = np.empty((*source.shape, parts[0][1].shape[-1]), dtype=np.float32)
        for block, part in parts:
            features[block] = part
        return features

    def require_fitted(self) -> None:
        """Raise a `ValueError` unless `fit` or `load` came first."""
        if not hasattr(self, "classifier_"):
            raise ValueError("This segmenter has learned nothing yet; call `fit` with images and labels first.")

    def deep_grid(self, image: ImageRegions, index: int) -> np.ndarray | None:
        """Reduced deep features of a slice, a vector for each patch; none without a backbone."""
        if self.deep is None or self.reduction_ is None:
            return None
        return self.deep.grid(image, index, self.reduction_, self.cache, self.progress)

    def block_features(
        self, image: ImageRegions, index: int, block: Block, grid: np.ndarray | None, keep: bool = False
    ) -> np.ndarray:
        """Features of the pixels of a block, `(h, w, F)` float32: classical ones first.

        Args:
            image, index: a slice.
            block: rows and columns.
            grid: from `deep_grid`.
            keep: whether to remember the classical ones.
        """
        parts = []
        if self.classical:
            parts.append(self.classical_block(image, index, block, keep))
        if self.deep and grid is not None:
            parts.append(self.deep.upsample(grid, block))
        return np.concatenate(parts, axis=-1)

    def classical_block(self, image: ImageRegions, index: int, block: Block, keep: bool) -> np.ndarray:
        """Classical features of a block, from it and as much of its surroundings as they depend on."""
        assert self.classical is not None
        margin = self.classical.halo
        (top, bottom), (left, right) = ((span.start, span.stop) for span in block)
        size = (bottom - top + 2 * margin, right - left + 2 * margin)
        pixels = read_reflected(image, index, top - margin, left - margin, *size)
        if not self.colour_:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]

        def compute() -> np.ndarray:
            assert self.classical is not None
            return self.classical(pixels)[margin : size[0] - margin, margin : size[1] - margin]

        if not keep:
            return compute()
        digest = hashlib.sha256(f"{self.classical} {pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        return self.block_cache.get(digest, compute)

    def labelled_features(self, image: ImageRegions, index: int, pixels: np.ndarray) -> Iterator[np.ndarray]:
        """Features `(n, F)` of labelled pixels, for each block that has some; the order is that of `by_block`."""
        if len(pixels) == 0:
            return
        grid = self.deep_grid(image, index)
        for block, chosen in by_block(image.shape, pixels):
            rows, columns = (pixels[chosen] - [span.start for span in block]).T
            yield self.block_features(image, index, block, grid, keep=True)[rows, columns]

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` reads, on this machine or another: settings as JSON, arrays, the classifier.

        The weights of the backbone are not in it, but where they came from and their checksum.

        Raises:
            ValueError: nothing was learned, the classifier needs pickle to be saved, or the backbone has a removal.
            FileExistsError: the folder exists and is not empty.
            OSError: it cannot be written to, or the disk is full; nothing is left of it then.
        """
        self.require_fitted()
        backbone = self.deep.backbone if self.deep else None
        if backbone and backbone.removal:
            raise ValueError(f"A segmenter on {backbone.name} cannot be saved: {backbone.removal.name} is no model.")
        settings: dict[str, Any] = {
            "classifier": self.classifier,
            "classes": self.classes_.tolist(),
            "class_names": list(self.class_names) if self.class_names is not None else None,
            "colour": self.colour_,
            "max_pixels": self.max_pixels,
            "seed": self.seed,
            "classical": asdict(self.classical) if self.classical else None,
            "deep": None,
            "versions": {name: version(name) for name in LIBRARIES},
        }
        with new_folder(folder) as temporary:
            if self.deep and self.reduction_:
                source = self.deep.backbone.source
                settings["deep"] = {
                    "backbone": str(Path(source).resolve()) if Path(source).is_dir() else source,
                    "fingerprint": self.deep.fingerprint,
                    **{name: getattr(self.deep, name) for name in DEEP_SETTINGS},
                }
                save_file(vars(self.reduction_), temporary / REDUCTION)
            self.classifier_.save(temporary)
            write_json(temporary / SETTINGS, settings)
        self.identity = folder_identity(Path(folder))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        backbone: Backbone | None = None,
        cache: FeatureCache | MemoryCache | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> "TrainableSegmenter":
        """A segmenter that was saved.

        Args:
            folder: from `save`.
            backbone: the backbone it was fitted with; if not given, it is loaded from where it came from then.
            cache, progress: as for a new one.
            device: where a backbone that is loaded here runs.

        Raises:
            FileNotFoundError: it is no such folder.
            ValueError: a file in it is damaged, or the backbone is missing or not the one it was fitted with.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        deep = settings["deep"]
        if deep and backbone is None:
            try:
                backbone = load_backbone(deep["backbone"], device)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{deep['backbone']}, the backbone of {folder}, cannot be loaded ({error}). Give where it is now."
                ) from error
        options = {name: deep[name] for name in DEEP_SETTINGS} if deep else {}
        classical = settings["classical"]
        segmenter = cls(
            backbone if deep else None,
            ClassicalFeatures(**classical) if classical else None,
            settings["classifier"],
            max_pixels=settings["max_pixels"],
            cache=cache,
            class_names=settings["class_names"],
            seed=settings["seed"],
            progress=progress,
            **options,
        )
        if segmenter.deep:
            if segmenter.deep.fingerprint != deep["fingerprint"]:
                raise ValueError(
                    f"{segmenter.deep.backbone.source} is not the backbone that {folder} was fitted with: weights or "
                    "configuration differ. Give that one, or fit again."
                )
            segmenter.reduction_ = read_reduction(folder / REDUCTION)
        segmenter.classes_ = np.array(settings["classes"], dtype=np.uint8)
        segmenter.colour_ = settings["colour"]
        segmenter.classifier_ = load_classifier(settings["classifier"], folder)
        segmenter.identity = folder_identity(folder)
        return segmenter


def has_colour(pixels: np.ndarray) -> bool:
    """Whether the channels of `(h, w, 3)` pixels differ."""
    return bool((pixels != pixels[..., :1]).any())


def by_block(shape: tuple[int, int], pixels: np.ndarray) -> Iterator[tuple[Block, np.ndarray]]:
    """The blocks that have labelled pixels, and which of `pixels`, `(n, 2)`, lie in each."""
    for block in blocks(shape, BLOCK):
        low, high = ([getattr(span, end) for span in block] for end in ("start", "stop"))
        chosen = np.flatnonzero(((pixels >= low) & (pixels < high)).all(axis=1))
        if len(chosen):
            yield block, chosen


def read_settings(folder: Path) -> dict[str, Any]:
    """What `save` wrote down.

    Raises:
        FileNotFoundError: it is no folder of a segmenter.
        ValueError: the file is damaged.
    """
    if not (folder / SETTINGS).is_file():
        raise FileNotFoundError(f"{folder} holds no segmenter: {SETTINGS} is missing. Give a folder that `save` wrote.")
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        complete = settings.keys() >= {"classifier", "classes", "class_names", "colour", "classical", "deep", "seed"}
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{folder / SETTINGS} is damaged ({error}). Save the segmenter again.") from error
    if not complete:
        raise ValueError(f"{folder / SETTINGS} is incomplete. Save the segmenter again.")
    return settings


def read_reduction(path: Path) -> Reduction:
    """Standardisation and principal components that `save` wrote."""
    try:
        return Reduction(**load_file(path))
    except (OSError, SafetensorError, TypeError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}). Save the segmenter again.") from error


def folder_identity(folder: Path) -> str:
    """SHA-256 over the files of a saved segmenter."""
    parts = [f"{path.name} {sha256_of(path)}" for path in sorted(folder.iterdir()) if path.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
