# SPDX-License-Identifier: Apache-2.0
"""From a few scribbles to a mask: features of pixels -> classifier (arXiv 2603.16840, section S8.3).

segmenter = TrainableSegmenter(load_backbone("alibi-dinov2-small"))
mask = segmenter.fit(image, scribbles).predict(image)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import FeatureCache, MemoryCache
from alibi_dinov2.features.multi_scale_features import SCALES, MultiScaleFeatures
from alibi_dinov2.features.position_features import require_positions
from alibi_dinov2.io.channels import Channel
from alibi_dinov2.io.image_regions import ImageRegions, Images, as_images, fit_contrast
from alibi_dinov2.io.labels import as_label_maps
from alibi_dinov2.io.tiles import Block, assembled
from alibi_dinov2.segmentation.guided_filter import RADIUS, follow_edges
from alibi_dinov2.segmentation.labelled_pixels import LabelledPixels, pixels_to_learn
from alibi_dinov2.segmentation.pixel_classifiers import CLASSIFIERS, PixelClassifier, fit_classifier
from alibi_dinov2.segmentation.pixel_features import PixelFeatures, by_block, has_colour
from alibi_dinov2.segmentation.saved_segmenter import SavedBackbone, as_json, read_segmenter, write_segmenter
from modeling_alibi_dinov2.contrast import AUTO, Contrast, Setting

NOT_SAVED = ("backbone", "classical", "cache", "progress")  # parameters that are no settings, or saved otherwise


class TrainableSegmenter(BaseEstimator):
    """A classifier of pixels that learns from sparse labels; an estimator of scikit-learn, whose samples are pixels.

    An image is an array `(H, W)` or `(H, W, C)`, a PIL image, or something that regions are read from, such as
    `open_image.open_image` gives for files that do not fit in memory. A stack is an array `(slices, H, W)` or
    `(slices, H, W, C)`, or a file with several slices.

    Args:
        backbone: for deep features, from `load_backbone`; none for classical features alone.
        classical: which classical features; none for deep features alone.
        classifier: one of `CLASSIFIERS`.
        components, window, overlap, shifts, per_image, scales: of the deep features, see `MultiScaleFeatures.of`.
        position: which of `POSITIONS` a pixel's features have beside them: `row`, `column`, `border`. They are for
            classes that follow position, such as layers; anywhere else they mislead.
        guided_radius: pixels, of the guided filter that brings the borders of classes to the edges in the image; 0 for
            none, see `guided_filter`.
        max_pixels: labelled pixels that the classifier learns from, 2 or more; if there are more, so many are drawn.
        cache: for the backbone's features; with a `FeatureCache` they are kept on disk, otherwise in memory.
        class_names: one for each class, in the order of their numbers.
        contrast: how values become grey levels: `auto`, `per-image`, `full-range` or `(low, high)`; see `open_image`.
            It is found once, on the images to learn from, and the same for all that are segmented later.
        channel: of image files with several, the one that is seen, or up to three; see `open_image`.
        series: of image files with several images of different kinds, the one that is seen; see `open_image`.
        seed: of everything random.
        progress: whether to show bars.

    Attributes:
        classes_: numbers of the classes that were found in the labels, ascending, `(K,)` uint8.
        contrast_: the contrast that was found; images that are no `SlicedImage` are RGB already.
        features_: what the classifier sees of pixels, fitted on the images to learn from.
        classifier_: what was fitted.
        identity_: SHA-256 of all that predictions depend on, once it was saved or loaded; `None` before.
    """

    def __init__(
        self,
        backbone: Backbone | None = None,
        classical: ClassicalFeatures | None = ClassicalFeatures(),  # noqa: B008 - it cannot change
        classifier: str = CLASSIFIERS[0],
        components: int = DeepFeatures.components,
        window: int = DeepFeatures.window,
        overlap: int = DeepFeatures.overlap,
        shifts: int = DeepFeatures.shifts,
        per_image: bool = DeepFeatures.per_image,
        scales: Sequence[int] = SCALES,
        position: Sequence[str] = (),
        guided_radius: int = RADIUS,
        max_pixels: int = 50_000,
        cache: FeatureCache | MemoryCache | None = None,
        class_names: Sequence[str] | None = None,
        contrast: Setting = AUTO,
        channel: Channel = None,
        series: int | str | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        self.backbone = backbone
        self.classical = classical
        self.classifier = classifier
        self.components = components
        self.window = window
        self.overlap = overlap
        self.shifts = shifts
        self.per_image = per_image
        self.scales = scales
        self.position = position
        self.guided_radius = guided_radius
        self.max_pixels = max_pixels
        self.cache = cache
        self.class_names = class_names
        self.contrast = contrast
        self.channel = channel
        self.series = series
        self.seed = seed
        self.progress = progress

    def __sklearn_clone__(self) -> Self:
        """An unfitted segmenter of the same settings; it shares the backbone and the cache, which are no settings."""
        return type(self)(**self.get_params(deep=False))

    def fit(self, images: Images, labels: Any) -> Self:
        """Learn from labelled pixels. What was computed for an image before is not computed again.

        A fit that fails or is interrupted leaves the segmenter as it was.

        Args:
            images: one or several, of any sizes.
            labels: for each image `(H, W)`, for a stack `(slices, H, W)`, arrays or what NumPy makes arrays of:
                0 unlabelled, 1 to 255 classes. Images without labels help to find the principal components.

        Raises:
            ValueError: a setting is out of range, the labels do not fit the images or are no labels, or fewer than two
                classes are marked.

        Warns:
            OneImageWarning: of several images with labels, a class has them on one alone.
        """
        deep = self.deep_features()
        given = as_images(images)
        contrast = fit_contrast(given, self.contrast)
        sources = as_images(given, contrast)
        maps = as_label_maps(labels, sources)
        classes, labelled = pixels_to_learn(sources, maps, self.class_names, self.max_pixels, self.seed)
        features = self.fit_features(sources, labelled, deep)
        samples = [features.of_pixels(found.source, found.index, found.pixels) for found in labelled]
        classifier = self.classifier_of(features, np.concatenate(samples), labelled, classes)
        return self.set_fitted(classes, features, classifier, contrast)

    def classifier_of(
        self, features: PixelFeatures, samples: np.ndarray, labelled: Sequence[LabelledPixels], classes: np.ndarray
    ) -> PixelClassifier:
        """A classifier fitted to labelled pixels.

        Args:
            features: fitted.
            samples: of the labelled pixels, `(n, F)` float32.
            labelled, classes: from `pixels_to_learn`.
        """
        targets = np.searchsorted(classes, np.concatenate([found.labels for found in labelled]))
        return fit_classifier(
            self.classifier,
            samples,
            targets,
            len(classes),
            self.seed,
            images=np.repeat(np.arange(len(labelled)), [len(found.labels) for found in labelled]),
            views=features.views(),
        )

    def set_fitted(
        self, classes: np.ndarray, features: PixelFeatures, classifier: PixelClassifier, contrast: Contrast
    ) -> Self:
        """Set the attributes that a fit has found."""
        self.classes_, self.features_, self.classifier_ = classes, features, classifier
        self.contrast_: Contrast = contrast
        self.identity_: str | None = None
        return self

    def deep_features(self) -> MultiScaleFeatures | None:
        """How deep features are made, if they are; all settings are checked.

        Raises:
            ValueError: a setting is out of range.
        """
        if self.backbone is None and self.classical is None:
            raise ValueError("There is neither a backbone nor classical features; give one of them, or both.")
        if self.classifier not in CLASSIFIERS:
            raise ValueError(f"The classifier is {self.classifier!r}; it must be one of {', '.join(CLASSIFIERS)}.")
        require_positions(self.position)
        if self.guided_radius < 0:
            raise ValueError(f"guided_radius is {self.guided_radius}; it must be 0 pixels, for no filter, or more.")
        if self.max_pixels < 2:
            raise ValueError(f"max_pixels is {self.max_pixels}; it must be 2 or more.")
        if self.backbone is None:
            return None
        return MultiScaleFeatures.of(
            self.backbone, self.components, self.window, self.overlap, self.shifts, self.per_image, self.scales
        )

    def unfitted_features(
        self, deep: MultiScaleFeatures | None, cache: FeatureCache | MemoryCache, block_cache: MemoryCache
    ) -> PixelFeatures:
        """Features of pixels by the settings, still without a reduction; caches as `PixelFeatures` has them."""
        return PixelFeatures(self.classical, deep, (), False, cache, block_cache, self.progress, tuple(self.position))

    def fit_features(
        self, sources: Sequence[ImageRegions], labelled: Sequence[LabelledPixels], deep: MultiScaleFeatures | None
    ) -> PixelFeatures:
        """Fit the features to images, of which some pixels are labelled."""
        # Of the last fit, whether or not it came to its end: caches, and a backbone whose weights need no second hash.
        last: PixelFeatures | None = vars(self).get("_last_features")
        if last and last.deep == deep:
            deep = last.deep
        features = self.unfitted_features(
            deep,
            self.cache or (last.cache if last and isinstance(last.cache, MemoryCache) else MemoryCache()),
            last.block_cache if last else MemoryCache(),
        )
        self._last_features = features
        colour = any(
            has_colour(found.source.read(found.index, *block))
            for found in labelled
            for block, _ in by_block(features.blocks(found.source.shape), found.pixels)
        )
        reductions = deep.fit(sources, features.cache, self.progress) if deep else ()
        return replace(features, colour=colour, reductions=reductions)

    def predict(self, image: np.ndarray | Image.Image | ImageRegions) -> np.ndarray:
        """The class of every pixel, of `classes_`: `(H, W)` uint8, of a stack of several slices `(slices, H, W)`.

        Raises:
            NotFittedError: the segmenter was not fitted.
            ValueError: it is no image, or there are several.
        """

        def classes(source: ImageRegions, index: int) -> Iterator[tuple[Block, np.ndarray]]:
            for _, block, probabilities in self.predict_blocks(source, index):
                yield block, self.classes_[probabilities.argmax(axis=-1)]

        return self.of_image(image, classes)

    def predict_proba(self, image: np.ndarray | Image.Image | ImageRegions) -> np.ndarray:
        """Probabilities of the classes, `(H, W, K)` float32, in the order of `classes_`, of a stack of several slices
        `(slices, H, W, K)`; raises what `predict` raises."""

        def probabilities(source: ImageRegions, index: int) -> Iterator[tuple[Block, np.ndarray]]:
            for _, block, part in self.predict_blocks(source, index):
                yield block, part

        return self.of_image(image, probabilities)

    def pixel_features(self, image: np.ndarray | Image.Image | ImageRegions) -> np.ndarray:
        """What the classifier sees of every pixel, `(H, W, F)` float32, of a stack of several slices
        `(slices, H, W, F)`; raises what `predict` raises."""
        self.require_fitted()
        return self.of_image(image, self.features_.of_slice)

    def of_image(
        self,
        image: np.ndarray | Image.Image | ImageRegions,
        parts: Callable[[ImageRegions, int], Iterator[tuple[Block, np.ndarray]]],
    ) -> np.ndarray:
        """An array of a whole image from what `parts` gives for the blocks of each slice."""
        self.require_fitted()
        given = as_images(image, self.contrast_)
        if len(given) > 1:
            raise ValueError(f"There are {len(given)} images; give them one after the other.")
        (source,) = given
        whole = assembled(source.slices, source.shape, lambda index: parts(source, index))
        return whole if source.slices > 1 else whole[0]

    def predict_blocks(
        self, image: ImageRegions, index: int = 0, skip: Callable[[int], bool] | None = None
    ) -> Iterator[tuple[int, Block, np.ndarray]]:
        """Probabilities of an image of any size, block by block: number, rows and columns, `(h, w, K)` float32.

        Args:
            image: that regions are read from.
            index: of the slice.
            skip: tells of a block's number whether it is not wanted.

        Raises:
            NotFittedError: the segmenter was not fitted.
        """
        self.require_fitted()
        (image,) = as_images(image, self.contrast_)
        grids = None
        for number, block in enumerate(self.features_.blocks(image.shape)):
            if skip and skip(number):
                continue
            # Computed once a block is wanted, and asked for only then: others may have done the rest meanwhile.
            grids = self.features_.grids(image, index) if grids is None else grids
            yield number, block, self.block_probabilities(image, index, block, grids)

    def block_probabilities(
        self, image: ImageRegions, index: int, block: Block, grids: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Probabilities of the pixels of any block of a slice, `(h, w, K)` float32.

        Args:
            image, index: the slice, in the contrast `contrast_`.
            block: rows and columns.
            grids: of the slice, from `features_.grids`.
        """
        return follow_edges(
            image,
            index,
            block,
            self.guided_radius,
            lambda wide: self.classifier_.predict_columns(self.features_.columns(image, index, wide, grids)),
        )

    def require_fitted(self) -> None:
        """Raise a `NotFittedError`, which is a `ValueError`, unless `fit` or `load` came first."""
        check_is_fitted(
            self,
            "classifier_",
            msg="This %(name)s has learned nothing yet; call `fit` with images and labels first.",
        )

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` reads, on this machine or another: settings as JSON, arrays, the classifier.

        The weights of the backbone are not in it, but their checksum and where they came from: the Hub id, or the way
        from this folder to theirs.

        Raises:
            NotFittedError: nothing was learned.
            ValueError: the backbone has a removal.
            FileExistsError: the folder exists and is not empty.
            OSError: it cannot be written to, or the disk is full; nothing is left of it then.
        """
        self.require_fitted()
        folder, deep = Path(folder), self.features_.deep
        if deep and deep.backbone.removal:
            raise ValueError(
                f"A segmenter on {deep.backbone.name} cannot be saved: {deep.backbone.removal.name} is no model."
            )
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name not in NOT_SAVED}
        facts = {
            "parameters": {name: as_json(value) for name, value in parameters.items()},
            "classical": asdict(self.classical) if self.classical else None,
            "backbone": SavedBackbone.of(deep.backbone, deep.fingerprint, folder) if deep else None,
            "classes": self.classes_.tolist(),
            "colour": self.features_.colour,
            "contrast": self.contrast_.to_dict(),
        }
        self.identity_ = write_segmenter(folder, facts, self.features_.reductions, self.classifier_).checksum

    @classmethod
    def load(
        cls,
        folder: str | Path,
        backbone: Backbone | None = None,
        cache: FeatureCache | MemoryCache | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> Self:
        """A segmenter that was saved.

        Args:
            folder: from `save`.
            backbone: the backbone it was fitted with; if not given, it is loaded from the Hub, from where it lay as
                seen from the segmenter, or from beside the segmenter.
            cache, progress: as for a new one.
            device: where a backbone that is loaded here runs.

        Raises:
            FileNotFoundError: it is no such folder.
            ValueError: a file in it is damaged or edited, or the backbone is missing or not the one it was fitted with.
        """
        folder = Path(folder)
        saved = read_segmenter(folder)
        settings = saved.settings
        if settings.backbone is None:
            backbone = None
        elif backbone is None:
            backbone = settings.backbone.load(folder, device)
        classical = ClassicalFeatures(**settings.classical) if settings.classical else None
        try:
            parameters = settings.all_parameters
            if isinstance(parameters.get("contrast"), dict):
                parameters["contrast"] = Contrast.from_dict(parameters["contrast"])
            segmenter = cls(backbone, classical, cache=cache, progress=progress, **parameters)
        except TypeError as error:
            raise ValueError(f"{folder} was saved by another version of this package ({error}).") from error
        deep = segmenter.deep_features()
        if deep and settings.backbone and deep.fingerprint != settings.backbone.fingerprint:
            raise ValueError(
                f"{deep.backbone.source} is not the backbone that {folder} was fitted with: weights or configuration "
                "differ. Give that one, or fit again."
            )
        segmenter.classes_ = np.array(settings.classes, dtype=np.uint8)
        segmenter.contrast_ = Contrast.from_dict(settings.contrast)
        unfitted = segmenter.unfitted_features(deep, cache or MemoryCache(), MemoryCache())
        segmenter.features_ = replace(unfitted, reductions=saved.reductions, colour=settings.colour)
        segmenter.classifier_, segmenter.identity_ = saved.classifier, settings.checksum
        return segmenter
