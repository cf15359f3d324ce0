# SPDX-License-Identifier: Apache-2.0
"""Do the features tell where a patch is, rather than what it shows? (arXiv 2603.16840, section 3)

In the order in which to read:

    position_targets.py     what a probe is to predict: functions of a patch's place
    patch_sampling.py       which patches it is fitted on, and which it is tested on
    noise.py                images without content
    joint_probes.py         how well all channels together predict the place
    channel_probes.py       how well each channel alone does
    positional_probe.py     command: the paper's one figure, R² of x and y from the output
    positional_bias.py      command: all targets, probes, layers and channels
    positional_figures.py   its pictures
    rolls.py                maps of patches, rolled as their images are
    clusters.py             command: whether a patch's cluster comes from its content or from its place
    pca.py                  command: principal components as colours
    token_geometry.py       command: the shape that tokens make in space
    query_similarity.py     command: where features are like those at one point
    stress.py               command: features of inputs without content, and under noise in the distances
"""
