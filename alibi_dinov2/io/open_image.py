# SPDX-License-Identifier: Apache-2.0
"""Any image file as regions of 8-bit RGB, with its contrast.

with open_image("stack.tif", channel="DAPI") as image:
    print(image.describe())
    pixels = image.read(0, slice(0, 512), slice(0, 512))
"""

from contextlib import ExitStack
from pathlib import Path

from alibi_dinov2.io.channels import Channel
from alibi_dinov2.io.damage import DAMAGE, naming
from alibi_dinov2.io.pillow_images import open_pillow
from alibi_dinov2.io.sliced_image import REFUSE, SlicedImage
from alibi_dinov2.io.stored_image import StoredImage, alike
from alibi_dinov2.io.tiff import TIFF_SIGNATURES, open_tiff
from alibi_dinov2.io.vendor_formats import vendor_reader
from modeling_alibi_dinov2.contrast import AUTO, Setting

HEAD = 512  # bytes that tell the format


class ImageFile(SlicedImage):
    """An image, a stack or a series of them in a file; a context manager. See `open_image`.

    Attributes:
        path: of the file, or its name if it was given as bytes.
        left_out: images of the file that are not among the slices, such as thumbnails.
        lossy: name of the compression that has changed values, or empty.
    """

    def __init__(
        self,
        source: str | Path | bytes,
        name: str | None = None,
        contrast: Setting = AUTO,
        channel: Channel = None,
        series: int | str | None = None,
        nonfinite: str = REFUSE,
    ) -> None:
        if not isinstance(source, bytes):
            source = Path(source)
        name = name or ("the image" if isinstance(source, bytes) else str(source))
        self.path = Path(name) if isinstance(source, bytes) else source
        with ExitStack() as resources:
            with naming(name):
                images, self.left_out = alike(stored_images(source, resources), series)
            super().__init__(images, name, contrast, channel, nonfinite)
            self.lossy = images[0].lossy
            self.resources = resources.pop_all()

    def __enter__(self) -> "ImageFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.resources.close()

    def describe(self) -> str:
        """One line: what the image is, what of it is seen, and how its values became grey levels."""
        left_out = "".join(f"; left out: {image.name or 'image'} {image.kind}" for image in self.left_out)
        return super().describe() + left_out


def open_image(
    source: str | Path | bytes,
    name: str | None = None,
    *,
    contrast: Setting = AUTO,
    channel: Channel = None,
    series: int | str | None = None,
    nonfinite: str = REFUSE,
) -> ImageFile:
    """Open an image file of any kind to read regions of it; see `SlicedImage` for what it gives.

    Args:
        source: a path, or the bytes of a file. TIFFs of every kind that tifffile reads, all that Pillow reads, and
            with the extra `microscopes` CZI, ND2, LIF, DM3, DM4, MRC and EMD.
        name: what messages call the image; the path if there is one.
        contrast: `auto` (8-bit values as they are, others stretched between percentiles of the whole file),
            `per-image` (each slice by itself), `full-range` (all that the type can hold), `(low, high)`, or a
            `Contrast` that was found before.
        channel: number or name of the channel that is seen in grey, or of up to three seen as red, green and blue;
            needed only if there are several that are no colours.
        series: number or name of one image of a file that holds several; if not given, those like the largest are the
            slices, and smaller ones are left out.
        nonfinite: `refuse` (an error at the first read that says how many pixels are NaN or infinite) or `mask`.

    Raises:
        ValueError: the file is no image or is damaged, a channel or series must be chosen or is not there, or a library
            is missing; the message names the file and says what to do.
        FileNotFoundError: there is no such file.
    """
    return ImageFile(source, name, contrast, channel, series, nonfinite)


def stored_images(source: Path | bytes, resources: ExitStack) -> list[StoredImage]:
    """The images of a file by the reader of its format, which its first bytes tell.

    Raises:
        NotImplementedError: no reader can; the message says why.
    """
    if isinstance(source, bytes):
        head = source[:HEAD]
    else:
        with open(source, "rb") as file:
            head = file.read(HEAD)
    if reader := vendor_reader(head):
        return reader(source, resources)
    if head[:4] not in TIFF_SIGNATURES:
        return open_pillow(source, resources)
    try:
        return open_tiff(source, resources)
    except NotImplementedError as reason:
        try:
            return open_pillow(source, resources)
        except DAMAGE as error:
            raise NotImplementedError(f"tifffile: {reason}; Pillow: {error}") from error
