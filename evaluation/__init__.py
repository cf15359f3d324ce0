# SPDX-License-Identifier: Apache-2.0
"""Image -> features -> probe or segmenter -> result record -> card."""
