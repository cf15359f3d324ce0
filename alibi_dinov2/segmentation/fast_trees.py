# SPDX-License-Identifier: Apache-2.0
"""The sum of many small trees for very many pixels, a node at a time instead of a pixel at a time.

Trees that learn from strokes have a few nodes each. Going through them pixel by pixel, as XGBoost does, spends its time
on finding the way; comparing one feature of all pixels with one threshold takes a processor a tenth of a nanosecond a
pixel. A tree is the value of its leftmost leaf and, for each node whose right branch a pixel takes, a difference:

    tree(x) = value(leftmost leaf) + Σ over nodes [x comes to the node and goes right] · difference of the node

where the difference is the value of the leftmost leaf on the right less that of the leftmost on the left. Values of
leaves are rounded to whole numbers of so small a unit that the sum of all is exact in float32: the result is the same
in whatever order they are added, and so the same for a pixel whichever region it is computed in; and classes with as
many votes have equal sums.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost

from alibi_dinov2.features.half_precision import ordered_thresholds

EXACT = 2.0**24  # whole numbers up to here are exact in float32
TINY = 1e-30
PIXELS = 2**17  # at once: with fewer, threads wait for each other between the steps
ROWS = 16  # kinds of nodes that are counted at once
COUNT = 255  # that a byte holds
SMALL = 100  # nodes that a tree may have: on two cores XGBoost takes longer for the trees of two classes


@dataclass(frozen=True)
class Tree:
    """A tree that says where a pixel goes; what that means for each class is in `differences`.

    Attributes:
        left, right: numbers of each node's children, −1 for a leaf.
        features, thresholds: of the inner nodes; a pixel goes right if its feature is not below the threshold.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    features: tuple[int, ...]
    thresholds: tuple[float, ...]

    def leftmost(self) -> list[int]:
        """The leaf that each node leads to on the left."""
        found = list(range(len(self.left)))
        for node in reversed(range(len(self.left))):  # children have higher numbers
            if self.left[node] >= 0:
                found[node] = found[self.left[node]]
        return found

    def inner(self) -> list[int]:
        """The inner nodes, each before those below it, right ones first."""
        found, ahead = [], [0]
        while ahead:
            node = ahead.pop()
            if self.left[node] >= 0:
                found.append(node)
                ahead += [self.left[node], self.right[node]]
        return found


@dataclass(frozen=True)
class TreeSums:
    """The sums of trees for K classes.

    Attributes:
        trees: of different shapes, those without a split left out.
        base: `(K,)` float32, in units.
        kinds: of the inner nodes of all trees, in the order of `masks`; those of a kind have equal differences.
        differences: of the kinds, `(K, kinds)` float32 whole numbers, in units.
        unit: what a whole number stands for.
    """

    trees: tuple[Tree, ...]
    base: np.ndarray
    kinds: tuple[int, ...]
    differences: np.ndarray
    unit: float

    @classmethod
    def of(cls, booster: xgboost.Booster) -> "TreeSums":
        """The margins of a booster of trees, but for rounding: by less than a ten-thousandth of their range."""
        learner = json.loads(booster.save_raw("json"))["learner"]
        model, parameters = learner["gradient_booster"]["model"], learner["learner_model_param"]
        classes = max(int(parameters["num_class"]), 1)
        base = np.zeros(classes) + np.array(json.loads(parameters["base_score"]), dtype=np.float64)
        trees = []
        for facts, number in zip(model["trees"], model["tree_info"], strict=True):
            tree, of_class = read_tree(facts)
            values = np.zeros((classes, len(of_class)))
            values[number] = of_class
            trees.append((tree, values))
        return cls.of_trees(trees, base)

    @classmethod
    def of_trees(cls, trees: Iterable[tuple[Tree, np.ndarray]], base: np.ndarray) -> "TreeSums":
        """The sums of trees, but for rounding: by less than a ten-thousandth of their range.

        Args:
            trees: with the values of their nodes for each class, `(K, nodes of the tree)`: of inner ones 0.
            base: what is added to them, `(K,)`.
        """
        # Trees of one shape differ in what their leaves say alone, such as a booster's of a forest for each class.
        merged: dict[Tree, np.ndarray] = {}
        for tree, values in trees:
            merged[tree] = merged.get(tree, np.zeros(values.shape)) + values
        # Half of what is exact is left for rounding.
        base_sums, sums = leaf_differences(merged, base)
        largest = max(float((np.abs(base_sums) + np.abs(sums).sum(axis=1)).max()), TINY)
        unit = float(2.0 ** np.ceil(np.log2(2 * largest / EXACT)))
        whole = {tree: np.rint(values / unit) for tree, values in merged.items()}
        # Trees that are of one class follow each other, so that the other classes need no sum meanwhile.
        whole = dict(sorted(whole.items(), key=lambda item: item[1].any(axis=1).tolist()))
        base, differences = leaf_differences(whole, np.rint(base / unit))
        differences, kinds = np.unique(differences, axis=1, return_inverse=True)
        return cls(
            tuple(tree for tree in whole if tree.inner()),
            base.astype(np.float32),
            tuple(kinds.reshape(-1).tolist()),
            differences.astype(np.float32),
            unit,
        )

    def of_rows(self, features: np.ndarray) -> np.ndarray:
        """Sums `(N, K)` float32 for features of pixels `(N, F)` float32."""
        sums = np.empty((len(features), len(self.base)), dtype=np.float32)
        thresholds = [np.array(tree.thresholds, dtype=np.float32) for tree in self.trees]
        for start in range(0, len(features), PIXELS):
            columns = np.ascontiguousarray(features[start : start + PIXELS].T)
            sums[start : start + PIXELS] = self.of_chunk(columns, thresholds).T
        return sums

    def of_columns(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Sums `(h, w, K)` float32 for a region.

        Args:
            columns: of each feature `(h, w)` int16 as `to_ordered` gives them.
        """
        height, width = columns[0].shape
        sums = np.empty((height, width, len(self.base)), dtype=np.float32)
        thresholds = [ordered_thresholds(np.array(tree.thresholds, dtype=np.float32)) for tree in self.trees]
        rows = -(-height // -(-height * width // PIXELS))
        for top in range(0, height, rows):
            strip = sums[top : top + rows]
            part = self.of_chunk([column[top : top + rows] for column in columns], thresholds)
            strip[...] = np.moveaxis(part, 0, -1)
        return sums

    def of_chunk(self, columns: Sequence[np.ndarray] | np.ndarray, thresholds: Sequence[np.ndarray]) -> np.ndarray:
        """Sums `(K, …)` float32 of some pixels; `columns` and `thresholds` are of one type."""
        pixels = columns[0].size
        sums = np.repeat(self.base[:, None], pixels, axis=1)
        counts, floats = np.empty((ROWS, pixels), np.uint8), np.empty((ROWS, pixels), np.float32)
        # Nodes that mean the same are counted, as those of trees that vote are: of K classes there are few such kinds.
        rows: dict[int, int] = {}
        added = 0
        for kind, mask in zip(self.kinds, self.masks(columns, thresholds), strict=True):
            if (kind not in rows and len(rows) == ROWS) or added == COUNT:
                self.add(sums, rows, counts, floats)
                added = 0
            flat = mask.reshape(-1).view(np.uint8)
            if kind in rows:
                counts[rows[kind]] += flat
            else:
                rows[kind] = len(rows)
                counts[rows[kind]] = flat
            added += 1
        self.add(sums, rows, counts, floats)
        return (sums * np.float32(self.unit)).reshape(-1, *columns[0].shape)

    def add(self, sums: np.ndarray, rows: dict[int, int], counts: np.ndarray, floats: np.ndarray) -> None:
        """Add to the sums `(K, n)` what has been counted, and forget it.

        Args:
            rows: of each kind of node that was counted.
            counts: how often, `(ROWS, n)` uint8.
            floats: room for as many float32.
        """
        weights = self.differences[:, list(rows)]
        np.copyto(floats[: len(rows)], counts[: len(rows)])
        for number in np.flatnonzero(weights.any(axis=1)):
            # No BLAS: it would wait for threads that other programs keep busy.
            sums[number] += np.einsum("n,np->p", weights[number], floats[: len(rows)])
        rows.clear()

    def masks(
        self, columns: Sequence[np.ndarray] | np.ndarray, thresholds: Sequence[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """For every inner node which pixels come to it and go right, in the order of `differences`."""
        for tree, of_tree in zip(self.trees, thresholds, strict=True):
            reached: dict[int, np.ndarray] = {}
            for node in tree.inner():
                right = columns[tree.features[node]] >= of_tree[node]
                here = reached.pop(node, None)
                if here is not None:
                    right &= here
                yield right
                if tree.left[tree.right[node]] >= 0:
                    reached[tree.right[node]] = right
                if tree.left[tree.left[node]] >= 0:
                    reached[tree.left[node]] = ~right if here is None else here ^ right


def are_small(splits: int, trees: int) -> bool:
    """Whether so many trees have so few splits together that `TreeSums` is faster than XGBoost."""
    return splits <= SMALL * trees


def count_splits(booster: xgboost.Booster) -> tuple[int, int]:
    """How many splits the trees of a booster have, and how many trees there are."""
    counts: Any = booster.get_score(importance_type="weight").values()
    model = json.loads(booster.save_config())["learner"]["gradient_booster"]["gbtree_model_param"]
    return sum(int(count) for count in counts), int(model["num_trees"])


def leaf_differences(trees: dict[Tree, np.ndarray], base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of all leftmost leaves and `base`, `(K,)`, and the differences of all inner nodes, `(K, nodes)`.

    Args:
        trees: with the values of their nodes, `(K, nodes of the tree)`, of which those of leaves count.
        base: `(K,)`.
    """
    parts = [np.zeros((len(base), 0))]
    for tree, values in trees.items():
        leftmost, inner = np.array(tree.leftmost()), tree.inner()
        base = base + values[:, leftmost[0]]
        parts.append(values[:, leftmost[np.array(tree.right)[inner]]] - values[:, leftmost[inner]])
    return base, np.concatenate(parts, axis=1)


def read_tree(facts: dict[str, Any]) -> tuple[Tree, np.ndarray]:
    """A tree of XGBoost's JSON, and the values of its nodes, which mean something for leaves."""
    left, right = (tuple(facts[name]) for name in ("left_children", "right_children"))
    inner = np.array(left) >= 0
    conditions = np.array(facts["split_conditions"], dtype=np.float32).astype(np.float64)  # as they were written
    features = np.where(inner, facts["split_indices"], 0)
    thresholds = np.where(inner, conditions, 0)
    return Tree(left, right, tuple(features.tolist()), tuple(thresholds.tolist())), np.where(inner, 0, conditions)
