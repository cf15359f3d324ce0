# SPDX-License-Identifier: Apache-2.0
"""From a few scribbles on micrographs to a class for every pixel."""
