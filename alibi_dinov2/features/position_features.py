# SPDX-License-Identifier: Apache-2.0
"""Where a pixel is, as features: for materials whose classes follow position, and for nothing else.

A classifier that knows where it was shown a class looks for the class there. In a coating that has the same layers from
left to right in every image this is what a user knows and filters do not; in a homogeneous material it is the error
that this package exists to avoid.
"""

from collections.abc import Sequence

import numpy as np

from alibi_dinov2.io.tiles import Block

POSITIONS = ("row", "column", "border")


def require_positions(kinds: Sequence[str]) -> None:
    """Raise a `ValueError` unless all are among `POSITIONS`, and none twice; a string is no sequence of them."""
    if isinstance(kinds, str) or not set(kinds) <= set(POSITIONS) or len(set(kinds)) < len(kinds):
        raise ValueError(f"position is {kinds!r}; give some of {', '.join(POSITIONS)} in a list, or none of them.")


def position_features(shape: tuple[int, int], block: Block, kinds: Sequence[str]) -> np.ndarray:
    """Where the pixels of a block are in their image.

    Args:
        shape: height and width of the image.
        block: rows and columns.
        kinds: of `POSITIONS`: `row` and `column` are 0 at the upper and the left border and 1 at the opposite ones;
            `border` is the distance to the nearest border, 0 there and 1 half the shorter side away from it.

    Returns:
        `(h, w, len(kinds))` float32. Pixels count at their middles; images of all sizes have the same range.
    """
    rows, columns = (np.arange(span.start, span.stop) + 0.5 for span in block)
    height, width = shape
    border = np.minimum(np.minimum(rows, height - rows)[:, None], np.minimum(columns, width - columns))
    found = {
        "row": np.broadcast_to((rows / height)[:, None], border.shape),
        "column": np.broadcast_to(columns / width, border.shape),
        "border": border / (min(shape) / 2),
    }
    return np.stack([found[kind] for kind in kinds], axis=-1).astype(np.float32)
