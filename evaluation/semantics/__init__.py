# SPDX-License-Identifier: Apache-2.0
"""Do the features still tell what a patch shows? Without position, but with torn features, nothing is won.

In the order in which to read:

    agreement.py              command: cosine of a student's features and its teacher's
    arrangement.py            command: do they tell how the patches around are arranged?
    stability.py              command: does the same content keep its feature in another view?
    miou.py                   intersection over union of label images
    segmentation_data.py      images with masks: folders, VOC, ADE20K and data sets of the Hub
    segmentation_head.py      a linear head on frozen features
    linear_segmentation.py    command: the head's mIoU, also on images upside down, rolled and turned
    segmentation_panel.py     pictures of its predictions
"""
