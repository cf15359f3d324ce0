# SPDX-License-Identifier: Apache-2.0
"""Does a segmenter that learns from a few labels gain by features without position? (arXiv 2603.16840, section S8.3)

In the order in which to read:

    scribbles.py        strokes as a user would draw them, from the ground truth
    comparison.py       options, feature sets and versions that the comparisons have in common
    few_labels.py       command: mIoU round by round, as strokes are added
    biased_labels.py    command: whether one-sided labels teach the sides
    benchmark/          command: the segmenter beside its parts and its peers, on many data sets
    position_features.py  command: when position as a feature helps, and when it misleads
    edges.py            command: what brings deep features, or classes, to the edges in the image
    edge_methods.py     the ways that it compares, one of them in joint_bilateral.py
"""
