# SPDX-License-Identifier: Apache-2.0
"""A forest of trees of scikit-learn as a booster of XGBoost, which saves it without pickle and predicts the same.

scikit-learn saves a forest by pickle, or by `skops` for its own version alone. XGBoost's files are read by its later
versions too. A tree of a forest gives shares of K classes, one of XGBoost a number: it becomes K trees of the same
shape, one for each class.
"""

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import xgboost
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from alibi_dinov2.segmentation.fast_trees import Tree

Estimator: TypeAlias = DecisionTreeClassifier | DecisionTreeRegressor  # a regressor of shares of classes
NO_PARENT = 2**31 - 1


def read_forest(estimators: Sequence[Estimator], views: Sequence[np.ndarray]) -> list[tuple[Tree, np.ndarray]]:
    """The trees of a forest as `TreeSums` and a booster have them.

    Args:
        estimators: the trees, fitted on float32 features and all of the classes.
        views: the numbers of the features that each has seen, in its order.

    Returns:
        Each tree, with `(K, nodes)` float32: what its leaves add to the probability of each class, 0 for other nodes.
    """
    found = []
    for estimator, view in zip(estimators, views, strict=True):
        nodes, count = estimator.tree_, estimator.tree_.node_count
        order, left = siblings_together(nodes.children_left, nodes.children_right)
        inner = left >= 0
        values = nodes.value[order].reshape(count, -1)
        shares = np.where(inner, 0, (values / values.sum(axis=1, keepdims=True) / len(estimators)).T)
        features = np.where(inner, view[np.where(inner, nodes.feature[order], 0)], 0)
        thresholds = np.where(inner, above(nodes.threshold[order]), 0)
        lists = (left, np.where(inner, left + 1, -1), features, thresholds)
        found.append((Tree(*(tuple(values.tolist()) for values in lists)), shares.astype(np.float32)))
    return found


def forest_booster(
    trees: Sequence[tuple[Tree, np.ndarray]], num_features: int, threads: int | None = None
) -> xgboost.Booster:
    """A booster whose margins are the probabilities of a forest, but for the rounding of float32.

    Args:
        trees: from `read_forest`.
        num_features: F.
        threads: to predict with, as many as there are if not given.
    """
    num_classes = len(trees[0][1])
    model = json.loads(empty_booster(num_features, num_classes).save_raw("json"))
    of_classes = [of_class for tree, shares in trees for of_class in xgboost_trees(tree, shares, num_features)]
    for index, tree in enumerate(of_classes):
        tree["id"] = index
    content = model["learner"]["gradient_booster"]["model"]
    content["trees"] = of_classes
    content["tree_info"] = list(range(num_classes)) * len(trees)
    content["iteration_indptr"] = [0, len(of_classes)]
    content["gbtree_model_param"] |= {"num_parallel_tree": str(len(trees)), "num_trees": str(len(of_classes))}
    booster = xgboost.Booster({"nthread": threads or 0})
    booster.load_model(bytearray(json.dumps(model).encode()))
    return booster


def empty_booster(num_features: int, num_classes: int) -> xgboost.Booster:
    """A booster of one round, for all that a file says beside its trees."""
    parameters = {
        "objective": "multi:softprob",
        "num_class": num_classes,
        "base_score": 0,
        "max_depth": 1,
        "nthread": 1,
    }
    samples = xgboost.DMatrix(
        np.zeros((num_classes, num_features), dtype=np.float32), np.arange(num_classes), nthread=1
    )
    return xgboost.train(parameters | {"nthread": 1}, samples, 1)


def xgboost_trees(tree: Tree, shares: np.ndarray, num_features: int) -> list[dict[str, Any]]:
    """For each class a tree of XGBoost's JSON that gives its share `(K, nodes)` of a tree of so many features."""
    count = len(tree.left)
    left, right = np.array(tree.left), np.array(tree.right)
    inner = left >= 0
    parents = np.full(count, NO_PARENT)
    for children in (left, right):
        parents[children[inner]] = np.flatnonzero(inner)
    thresholds = np.array(tree.thresholds, dtype=np.float32)
    zeros, nothing = [0] * count, [0.0] * count  # a file has integers as such, and the others with a point
    shape = {
        "base_weights": nothing,
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": zeros,
        "left_children": list(tree.left),
        "right_children": list(tree.right),
        "parents": parents.tolist(),
        "loss_changes": nothing,
        "split_indices": list(tree.features),
        "split_type": zeros,
        "sum_hessian": nothing,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(num_features),
            "num_nodes": str(count),
            "size_leaf_vector": "1",
        },
    }
    # With no more digits than single precision needs: XGBoost misreads some that have more.
    return [
        shape | {"split_conditions": [float(str(value)) for value in np.where(inner, thresholds, of_class)]}
        for of_class in shares
    ]


def siblings_together(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of a tree in an order in which a right child follows its left sibling, which XGBoost takes for granted.

    Args:
        left, right: children of each node, negative for a leaf.

    Returns:
        The old number of each node, and its left child by the new numbers, -1 for a leaf.
    """
    order, children = [0], []
    for node in order:  # grows while it is gone through
        children.append(len(order) if left[node] >= 0 else -1)
        if left[node] >= 0:
            order += [left[node], right[node]]
    return np.array(order), np.array(children)


def above(thresholds: np.ndarray) -> np.ndarray:
    """Thresholds `t` -> float32 `u` so that `x <= t` is `x < u` for every x in float32.

    scikit-learn goes left up to a threshold in double precision, XGBoost below one in single precision.
    """
    single = thresholds.astype(np.float32)
    below = np.where(single > thresholds, np.nextafter(single, np.float32(-np.inf)), single)
    return np.nextafter(below, np.float32(np.inf))
