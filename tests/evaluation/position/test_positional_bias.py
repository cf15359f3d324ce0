# SPDX-License-Identifier: Apache-2.0
"""The report finds position in the layers and channels that have it, and says the same as the single probes."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.features.dense_features import OUTPUT
from alibi_dinov2.io.files import sha256_of
from evaluation.position.channel_probes import channel_r2
from evaluation.position.joint_probes import predict, r_squared
from evaluation.position.patch_sampling import sample_repeatedly
from evaluation.position.position_targets import position_targets, ramp_targets
from evaluation.position.positional_bias import (
    Settings,
    main,
    probe_features,
    resample,
    summarise,
    table,
    worst_channels,
)
from evaluation.position.positional_probe import probe_images
from evaluation.position.positional_probe import summarise as summarise_probe
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

LAYERS = (2, OUTPUT)


def layers_with_position(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """`(2, rows, columns, 12)`: noise first, and then x in channel 3 and y in channel 7."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(2, rows, columns, 12))
    features[1] *= 0.05
    features[1, ..., 3] += np.linspace(-1, 1, columns)
    features[1, ..., 7] += np.linspace(-1, 1, rows)[:, None]
    return features.astype(np.float32)


def test_position_is_found_where_it_is():
    settings = Settings(LAYERS, samplings=("random", "grid_corner"), repeats=3)
    result = probe_features([layers_with_position(48, 48, seed) for seed in range(2)], settings)
    metrics = summarise(result, settings)
    for sampling in settings.samplings:
        for ramp in ("left_right", "up_down", "diagonal", "x_y", "raster"):
            assert metrics[f"{sampling}/ridge/{ramp}/output/r2_held_out"] > 0.6
            assert metrics[f"{sampling}/ridge/{ramp}/layer2/r2_held_out"] < 0
        assert metrics[f"{sampling}/ridge/random/output/r2_held_out"] < 0
    worst = worst_channels(result, settings)
    assert worst["left_right"][0] == 3
    assert worst["up_down"][0] == 7
    assert set(worst["x_y"][:2]) == {3, 7}
    # 2 samplings, 7 ramps and 2 layers, by 2 kinds: 2 probes with a deviation each, and the channels' mean.
    assert len(metrics) == 2 * 7 * 2 * 2 * (2 * 2 + 1)


def test_the_joint_probe_is_positional_probe():
    maps = [layers_with_position(24, 20, seed) for seed in range(2)]
    settings = Settings(LAYERS, repeats=4, seed=5)
    metrics = summarise(probe_features(maps, settings), settings)
    expected = summarise_probe(probe_images([layers[1] for layers in maps], repeats=4, seed=5))
    for name, value in expected.items():
        # Records have six decimals.
        assert metrics[f"random/ridge/x_y/output/{name}"] == pytest.approx(value, abs=1e-6)


def test_means_over_images_draws_channels_and_both_coordinates():
    maps = [layers_with_position(18, 24), layers_with_position(24, 18, seed=1)]
    settings = Settings(LAYERS, ramps=("radial", "x_y"), probes=("ridge",), repeats=2)
    result = probe_features(maps, settings)
    random = np.random.default_rng(0)
    expected, joint = [], []
    for layers in maps:
        rows, columns = layers.shape[1:3]
        sample = sample_repeatedly("random", rows, columns, 2, random)
        features, targets = layers.reshape(2, -1, 12), position_targets(rows, columns)
        expected.append(channel_r2(features, targets, sample.train, sample.held_out).held_out)
        joint += [r_squared(predict("ridge", features[1], targets, train), targets, ~train) for train in sample.train]
    # Image, layer, draw, coordinate, channel.
    each = np.mean(expected, axis=3)
    np.testing.assert_allclose(result.channel_r2[0, :, 1, :, 1], each.mean(axis=(0, 2)), atol=1e-9)
    np.testing.assert_allclose(result.channel_r2_std[0, :, 1, :, 1], each.std(axis=(0, 2)), atol=1e-6)
    np.testing.assert_allclose(result.joint_r2[:, 0, 0, :, 1, 1, 1].ravel(), np.mean(joint, axis=1), atol=1e-9)


def test_mean_predictions_are_the_ramps_where_position_is():
    settings = Settings(LAYERS, ramps=("left_right", "x_y"), probes=("ridge",))
    result = probe_features([layers_with_position(34, 34, seed) for seed in range(8)], settings)
    target = ramp_targets(["up_down"], 34, 34, np.random.default_rng(0))["up_down"].reshape(34, 34)
    assert result.predictions.shape == (1, 1, 2, 3, 34, 34)
    # The third target is y; the mean of 48 fits shrinks a little, and the noise of features is left.
    assert np.abs(result.predictions[0, 0, 1, 2] - target).mean() < 0.1
    assert result.predictions[0, 0, 0, 2].std() < 0.1


def test_maps_of_any_grid_become_square():
    ramp = np.broadcast_to(np.linspace(0, 1, 68), (1, 1, 1, 17, 68)).reshape(1, 1, 1, -1)
    square = resample(ramp, 17, 68)
    assert square.shape == (1, 1, 1, 34, 34)
    np.testing.assert_allclose(square[0, 0, 0, 5], (np.arange(34) * 2 + 0.5) / 67, atol=1e-12)


def test_table_has_a_line_per_layer_and_a_column_per_ramp():
    settings = Settings(LAYERS, ramps=("radial", "x_y"), probes=("ridge",))
    metrics = summarise(probe_features([layers_with_position(18, 18)], settings), settings)
    title, heading, first, last = table(metrics, settings).splitlines()
    assert "ridge probe, random patches" in title
    assert heading.split() == ["radial", "x_y"]
    assert first.startswith("layer2")
    name = "random/ridge/x_y/output/r2_"
    assert last.split()[-3:] == [f"{metrics[name + 'all_patches']:.2f}", "/", f"{metrics[name + 'held_out']:.2f}"]


def test_features_that_are_the_same_for_all_patches_are_refused():
    blank = layers_with_position(18, 18)
    blank[1] = 3 + 1e-6 * blank[1]  # rounding
    with pytest.raises(ValueError, match=r"image 2 \(output\) are the same for all patches"):
        probe_features([layers_with_position(18, 18), blank], Settings(LAYERS))


def test_no_image_and_small_images_are_refused():
    with pytest.raises(ValueError, match="no image"):
        probe_features([], Settings(LAYERS))
    with pytest.raises(ValueError, match="needs 2 to fit on"):
        probe_features([layers_with_position(5, 5)], Settings(LAYERS))


@pytest.fixture
def run(tmp_path, tiny_model, monkeypatch, capsys):
    """Run the command in this process with some options; its exit status, output and errors."""
    tiny_model().save_pretrained(tmp_path / "model")
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "model")

    def call(*options) -> tuple[int, str, str]:
        common = ("--model", tmp_path / "model", "--output", tmp_path / "results" / "bias.json")
        monkeypatch.setattr(sys, "argv", ["positional_bias", *map(str, (*common, *options))])
        try:
            main()
            status = 0
        except SystemExit as ending:
            status = int(ending.code)
        return status, *capsys.readouterr()

    return call


def test_command_writes_record_archive_and_figures(tmp_path, run):
    options = ("--noise", 2, "--size", 168, "--repeats", 2, "--ramps", "radial", "x_y")
    status, output, errors = run(*options, "--figures", tmp_path / "figures")
    assert status == 0, errors
    record = json.loads((tmp_path / "results" / "bias.json").read_text())
    assert record["task"] == "positional_bias"
    assert record["parameters"]["layers"] == [1, 2, 3, OUTPUT]
    assert record["parameters"]["ramps"] == ["radial", "x_y"]
    assert record["command"][:3] == ["python", "-m", "evaluation.position.positional_bias"]
    metrics = record["metrics"]
    assert f"{metrics['random/ridge/x_y/layer3/r2_held_out']:.2f}" in output
    archive = tmp_path / "results" / record["archive"]["file"]
    assert record["archive"]["sha256"] == sha256_of(archive)
    with np.load(archive, allow_pickle=False) as arrays:
        assert arrays["joint_r2"].shape == (2, 1, 2, 2, 4, 2, 2)
        assert arrays["channel_r2"].shape == (1, 4, 2, 48, 2)
        mean = arrays["joint_r2"][:, 0, 1, :, -1, 1, 0].mean()
        assert list(arrays["ramps"]) == ["radial", "x_y"]
    assert metrics["random/ridge/x_y/output/r2_all_patches"] == pytest.approx(mean, abs=1e-5)
    for name in ("channels", "predictions", "worst_channels"):
        with Image.open(tmp_path / "figures" / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture))) > 50


def test_chosen_layers_probes_and_samplings_are_what_is_measured(tmp_path, run):
    options = ("--layers", 0, "output", "--ramps", "x_y", "x_y", "--probes", "mlp", "ridge", "--samplings", "grid")
    status, _, errors = run("--noise", 1, "--size", 168, "--repeats", 1, *options, "--figures", tmp_path / "figures")
    assert status == 0, errors
    metrics = json.loads((tmp_path / "results" / "bias.json").read_text())["metrics"]
    names = {name.rsplit("/", 1)[0] for name in metrics}
    assert names == {
        f"grid/{probe}/x_y/{layer}" for probe in ("ridge", "mlp", "channels") for layer in ("layer0", OUTPUT)
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--noise", 0), "0 images of noise"),
        (("--noise", 1, "--size", 56), "needs 2 to fit on"),
        (("--noise", 1, "--size", 168, "--layers", 9), "Layers .* were asked for"),
        (("--noise", 1, "--size", 168, "--layers", "last"), "invalid parse_layer value"),
        (("--noise", 1, "--size", 168, "--repeats", 0), "0 draws were asked for"),
        (("--images", "blank"), "the same for all patches"),
        (("--images", "missing"), "is not a folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_input_says_what_is_wrong_and_writes_nothing(tmp_path, run, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blank").mkdir()
    Image.new("RGB", (168, 168), "grey").save(tmp_path / "blank" / "image.png")
    status, _, errors = run(*options)
    assert status == 2
    assert "positional_bias: error" in errors
    assert "Traceback" not in errors
    assert re.search(message, errors)
    assert not (tmp_path / "results").exists()
