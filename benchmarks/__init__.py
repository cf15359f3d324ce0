# SPDX-License-Identifier: Apache-2.0
"""What is fast, measured; never a timed test."""
