# SPDX-License-Identifier: Apache-2.0
"""How large an image may be: as large as this machine's memory, however large a damaged file says that it is."""

import os


def require_memory(height: int, width: int, bytes_per_pixel: int) -> None:
    """Raise a `ValueError` if what is decoded at once takes more memory than the machine has."""
    needed, there = height * width * bytes_per_pixel, physical_memory()
    if needed > there:
        raise ValueError(
            f"it has {width}×{height} pixels that are decoded at once, which needs {needed / 2**30:.0f} GiB of memory "
            f"where {there / 2**30:.0f} GiB are there: cut it into tiles, or make it smaller"
        )


def physical_memory() -> float:
    """Bytes of this machine's memory; infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return float("inf")
