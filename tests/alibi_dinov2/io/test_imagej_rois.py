# SPDX-License-Identifier: Apache-2.0
"""Labels drawn in ImageJ, and labels handed to it."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from alibi_dinov2.io.imagej_rois import read_rois, write_rois

roifile = pytest.importorskip("roifile")
SHAPE = (40, 60)


def save(path, *rois):
    for number, roi in enumerate(rois):
        roi.name = roi.name or f"region {number}"
        roifile.roiwrite(path, roi)
    return path


def blobs(slices: int) -> np.ndarray:
    """Labels with touching regions, holes and single pixels."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(slices, *SHAPE)), (0, 2, 2))
    labels = np.digitize(noise, [-0.1, 0.0, 0.1]).astype(np.uint8)
    labels[labels == 3] = 255
    labels[:, ::13, ::17] = 7
    return labels if slices > 1 else labels[0]


@pytest.mark.parametrize("slices", [1, 3])
def test_written_labels_come_back_unchanged(tmp_path, slices):
    labels = blobs(slices)
    write_rois(tmp_path / "labels.zip", labels)
    np.testing.assert_array_equal(read_rois(tmp_path / "labels.zip", slices, SHAPE), labels)


def test_kinds_of_regions_cover_the_pixels_that_imagej_fills(tmp_path):
    kinds, rows, columns = roifile.ROI_TYPE, *np.ogrid[: SHAPE[0], : SHAPE[1]]
    place = {"top": 5, "left": 10, "bottom": 15, "right": 30}
    cases = [
        (roifile.ImagejRoi(roitype=kinds.RECT, **place), (rows >= 5) & (rows < 15) & (columns >= 10) & (columns < 30)),
        (
            roifile.ImagejRoi(roitype=kinds.OVAL, **place),
            ((rows + 0.5 - 10) / 5) ** 2 + ((columns + 0.5 - 20) / 10) ** 2 <= 1,
        ),
        (
            roifile.ImagejRoi.frompoints([[2, 3], [12, 3], [12, 8], [2, 8]]),
            (columns >= 2) & (columns < 12) & (rows >= 3) & (rows < 8),
        ),
    ]
    for number, (roi, expected) in enumerate(cases):
        roi.group = 4
        found = read_rois(save(tmp_path / f"{number}.roi", roi), 1, SHAPE)
        np.testing.assert_array_equal(found, 4 * np.broadcast_to(expected, SHAPE))


def test_lines_have_their_width_and_points_a_pixel(tmp_path):
    line = roifile.ImagejRoi.frompoints([[5.5, 10.5], [25.5, 10.5]])
    line.roitype, line.stroke_width, line.group = roifile.ROI_TYPE.POLYLINE, 3, 1
    point = roifile.ImagejRoi.frompoints([[40, 20], [41, 30]])
    point.roitype, point.group = roifile.ROI_TYPE.POINT, 2
    found = read_rois(save(tmp_path / "both.zip", line, point), 1, SHAPE)
    assert (found[9:12, 5:26] == 1).all()
    assert not found[[7, 13]].any()
    assert np.argwhere(found == 2).tolist() == [[20, 40], [30, 41]]


def test_regions_have_slices_and_the_later_one_counts(tmp_path):
    first, second, third = (
        roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, top=0, left=0, bottom=9, right=9) for _ in "123"
    )
    first.group, second.group, third.group = 1, 2, 3
    second.position, third.position, third.right = 2, 2, 3
    found = read_rois(save(tmp_path / "r.zip", first, second, third), 3, SHAPE)
    assert [page[0, 5] for page in found] == [1, 2, 1]
    assert [page[0, 0] for page in found] == [1, 3, 1]


def test_what_cannot_be_told_is_named(tmp_path):
    roi = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, top=0, left=0, bottom=9, right=9, name="pore")
    with pytest.raises(ValueError, match=r"Region pore of .*a\.roi has the group 0; the group is the class, 1 to 255"):
        read_rois(save(tmp_path / "a.roi", roi), 1, SHAPE)
    roi.group, roi.position = 1, 4
    with pytest.raises(ValueError, match="is on slice 4; the image has 3"):
        read_rois(save(tmp_path / "b.roi", roi), 3, SHAPE)
    with pytest.raises(FileNotFoundError):
        read_rois(tmp_path / "missing.roi", 1, SHAPE)
    with pytest.raises(ValueError, match="Nothing is labelled"):
        write_rois(tmp_path / "empty.zip", np.zeros(SHAPE, np.uint8))
    with pytest.raises(ValueError, match=r"written as \.zip"):
        write_rois(tmp_path / "labels.roi", blobs(1))
    assert not (tmp_path / "empty.zip").exists()


@pytest.mark.parametrize("name", ["labels.zip", "one.roi"])
def test_damaged_files_raise_our_error(tmp_path, name):
    roi = roifile.ImagejRoi.frompoints([[2, 3], [12, 3], [12, 8]])
    roi.group = 1
    path = save(tmp_path / name, roi)
    content, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        changed[random.integers(len(content))] = random.integers(256)
        path.write_bytes(changed[: random.integers(len(content)) if random.random() < 0.3 else None])
        try:
            assert read_rois(path, 1, SHAPE).shape == SHAPE
        except ValueError as error:
            assert name in str(error)  # noqa: PT017 - some damage is of no consequence
