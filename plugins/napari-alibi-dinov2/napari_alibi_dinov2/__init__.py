# SPDX-License-Identifier: Apache-2.0
"""A napari plug-in that segments images from a few strokes with ALiBi-DINOv2, and its features for Convpaint."""
