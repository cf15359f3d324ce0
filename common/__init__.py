# SPDX-License-Identifier: Apache-2.0
"""What training and evaluation both need: safe writing of files and folders, and reading of images."""
