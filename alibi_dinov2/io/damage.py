# SPDX-License-Identifier: Apache-2.0
"""What damaged files make their readers raise, and the message about it."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

# Found by truncating and corrupting files of all kinds. What codecs raise is a RuntimeError.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
)


@contextmanager
def naming(name: object) -> Iterator[None]:
    """Turn what readers raise into a `ValueError` that names the file; one that does not exist stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except NotImplementedError as error:
        raise ValueError(f"{name} cannot be read as an image: {error}.") from error
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{name} cannot be read as an image ({reason}). Replace or remove the file.") from error
