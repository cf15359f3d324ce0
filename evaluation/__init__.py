# SPDX-License-Identifier: Apache-2.0
"""The questions that the model has to answer, a folder each: images -> features -> measurement -> record -> card.

position/        do the features tell where a patch is?
semantics/       do they still tell what it shows?
segmentation/    does a segmenter that learns from a few labels gain by it?
removals/        what else could be done about position, without a new backbone?
report/          records, tables and cards: where the figures go
metrics/         two of the metrics for the library `evaluate`
command.py       what all commands have in common
"""
