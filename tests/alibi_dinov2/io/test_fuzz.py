# SPDX-License-Identifier: Apache-2.0
"""A thousand damaged files; ten thousand by hand, see `fuzzing`."""

from collections import Counter

from tests.alibi_dinov2.io.fuzzing import fuzz

COUNT = 1000


def test_damaged_files_are_read_or_refused_and_nothing_is_left_half_written(tmp_path):
    counts = Counter(fuzz(tmp_path, COUNT, seed=1))
    assert counts["read"] + counts["refused"] == COUNT
    # Neither kind is rare, or little would have been tried.
    assert min(counts["read"], counts["refused"], 20 * counts["segmented"]) > COUNT / 10
