# SPDX-License-Identifier: Apache-2.0
"""What an Inference Endpoint of the Hub runs for this folder: features, their principal components, similarity.

The Hub imports this file by itself, beside the model's folder; it therefore loads the model as a stranger would.
"""

import base64
import binascii
import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

TASKS = ("features", "pca", "similarity")
SIZE, MOST_PIXELS = 518, 1022 * 1022  # shortest side if none is asked for; what a request may cost
TRIMMED = 1.0  # per cent at either end of a component that its colour does not tell apart


class EndpointHandler:
    """Images -> dense features, or a picture of them.

    Args:
        path: folder or Hub id of the model.
    """

    def __init__(self, path: str = "") -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=True)
        self.model = AutoModel.from_pretrained(path, trust_remote_code=True).to(self.device).eval()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Answer a request.

        Args:
            data: `inputs`, an image: a PIL image, the bytes of an image file, or these bytes in base64, of 8 bits or
                more, which the image processor sees with the contrast of its configuration; and
                `parameters`, of which all may be left out:

                * `task`: `"features"` (the default), `"pca"` or `"similarity"`;
                * `size`: shortest side in pixels at which the model sees the image, 518 if not given;
                * `point`: for `"similarity"`, row and column of a pixel of the image.

        Returns:
            `grid`, the rows and columns of patches, and

            * for `"features"`: `features`, an array `(rows, columns, channels)` of float32, as the bytes of a NumPy
              file in base64: `numpy.load(io.BytesIO(base64.b64decode(features)))`;
            * for `"pca"`: `image`, the first three principal components of the features as red, green and blue, a PNG
              in base64, of the size at which the model saw the image;
            * for `"similarity"`: `similarity`, rows of the cosine between each patch and the one at `point`, from -1 to
              1, and `image`, the same as a greyscale PNG in base64, black for -1 and white for 1.

        Raises:
            ValueError: the request asks for something that there is not; the message says what there is.
        """
        unknown = sorted(data.keys() - {"inputs", "parameters"})
        if unknown or "inputs" not in data:
            raise ValueError(f"The request has {sorted(data)}; it must have 'inputs' and may have 'parameters'.")
        task, size, point = read_parameters(data.get("parameters") or {})
        image = read_image(data["inputs"])
        place = (0.0, 0.0) if point is None else relative_point(point, image)
        pixels = self.pixels(image, size)
        features = self.features(pixels)
        rows, columns, _ = features.shape
        answer: dict[str, Any] = {"grid": [rows, columns]}
        if task == "features":
            return answer | {"features": encoded(features)}
        shown = (pixels.shape[-1], pixels.shape[-2])
        if task == "pca":
            return answer | {"image": picture(component_colours(features), shown)}
        row, column = (int(share * count) for share, count in zip(place, (rows, columns), strict=True))
        similarity = cosine_to(features, row, column)
        grey = np.round((similarity + 1) * 127.5).astype(np.uint8)
        return answer | {"similarity": similarity.round(4).tolist(), "image": picture(grey, shown)}

    def pixels(self, image: Image.Image, size: int) -> torch.Tensor:
        """`(1, 3, H, W)` of an image whose shortest side becomes `size`.

        Raises:
            ValueError: these would be too many pixels.
        """
        height, width = image.height, image.width
        scaled = size * size * max(height, width) / min(height, width)
        if scaled > MOST_PIXELS:
            raise ValueError(
                f"An image of {height}×{width} pixels whose shortest side becomes {size} has {scaled:.0f} pixels; at "
                f"most {MOST_PIXELS} are computed in one request. Choose a smaller `size`, or cut the image into tiles."
            )
        inputs = self.processor(image, size={"shortest_edge": size}, do_center_crop=False, return_tensors="pt")
        return inputs["pixel_values"].to(self.device)

    @torch.inference_mode()
    def features(self, pixels: torch.Tensor) -> np.ndarray:
        """Features of the patches of one image, `(rows, columns, channels)`, float32."""
        patch, stride = self.model.config.patch_shape, self.model.config.stride_shape
        rows, columns = ((pixels.shape[axis - 2] - patch[axis]) // stride[axis] + 1 for axis in (0, 1))
        tokens = self.model(pixels).last_hidden_state[0, -rows * columns :]
        return tokens.float().cpu().numpy().reshape(rows, columns, -1)


def read_parameters(parameters: dict[str, Any]) -> tuple[str, int, tuple[float, float] | None]:
    """Task, size and point of a request; see `EndpointHandler.__call__`.

    Raises:
        ValueError: one of them is wrong or unknown.
    """
    unknown = sorted(parameters.keys() - {"task", "size", "point"})
    if unknown:
        raise ValueError(f"The parameters {', '.join(unknown)} are not known; there are task, size and point.")
    task, size, point = parameters.get("task", TASKS[0]), parameters.get("size", SIZE), parameters.get("point")
    if task not in TASKS:
        raise ValueError(f"`task` is {task!r}; it must be one of {', '.join(TASKS)}.")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"`size` is {size!r}; it must be a number of pixels, such as {SIZE}.")
    if (point is None) == (task == "similarity"):
        raise ValueError(f"`point` is {point!r} and `task` {task!r}; similarity, and it alone, takes a point.")
    if point is None:
        return task, size, None
    if not isinstance(point, list | tuple) or len(point) != 2 or not all(isinstance(one, int | float) for one in point):
        raise ValueError(f"`point` is {point!r}; it must be [row, column], in pixels of the image.")
    return task, size, (point[0], point[1])


def relative_point(point: tuple[float, float], image: Image.Image) -> tuple[float, float]:
    """Where a pixel is in an image, as shares of its height and width in [0, 1).

    Raises:
        ValueError: it is outside.
    """
    row, column = point
    if not (0 <= row < image.height and 0 <= column < image.width):
        raise ValueError(f"`point` is {point}, outside of the image of {image.height} rows and {image.width} columns.")
    return row / image.height, column / image.width


def read_image(source: Any) -> Image.Image:
    """An image of a request.

    Raises:
        ValueError: it is none.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, str):
        try:
            source = base64.b64decode(source.removeprefix("data:").split("base64,")[-1], validate=True)
        except binascii.Error as error:
            raise ValueError(f"`inputs` is a text that is not base64 ({error}); encode the image's file.") from error
    if not isinstance(source, bytes):
        raise ValueError(f"`inputs` is a {type(source).__name__}; it must be an image, its file's bytes or base64.")
    try:
        image = Image.open(io.BytesIO(source))
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"`inputs` is no image that Pillow reads: {error}") from error
    return image


def component_colours(features: np.ndarray) -> np.ndarray:
    """The first three principal components of features `(rows, columns, channels)`, `(rows, columns, 3)` uint8.

    What does not vary is grey.
    """
    rows, columns, channels = features.shape
    patches = torch.from_numpy(features).reshape(-1, channels).double()
    centred = patches - patches.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    # The sign of a direction is arbitrary: its largest entry decides, so that a picture comes out the same everywhere.
    directions = directions[:3] * directions[:3].gather(1, directions[:3].abs().argmax(dim=1, keepdim=True)).sign()
    scores = (centred @ directions.T).numpy()
    colours = np.full((rows * columns, 3), 0.5)
    for number, score in enumerate(scores.T):
        low, high = np.percentile(score, (TRIMMED, 100 - TRIMMED))
        if high - low > 1e-9 * max(np.abs(features).max(), 1):
            colours[:, number] = ((score - low) / (high - low)).clip(0, 1)
    return np.round(colours * 255).astype(np.uint8).reshape(rows, columns, 3)


def cosine_to(features: np.ndarray, row: int, column: int) -> np.ndarray:
    """Cosine between all patches and one of them, `(rows, columns)`."""
    directions = features / np.linalg.norm(features, axis=-1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
    return (directions @ directions[row, column]).clip(-1, 1)


def encoded(array: np.ndarray) -> str:
    """An array as the bytes of a NumPy file, in base64."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode()


def picture(colours: np.ndarray, size: tuple[int, int]) -> str:
    """A colour or grey level for each patch as a PNG of `size`, width and height in pixels, in base64."""
    buffer = io.BytesIO()
    Image.fromarray(colours).resize(size, Image.Resampling.NEAREST).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
