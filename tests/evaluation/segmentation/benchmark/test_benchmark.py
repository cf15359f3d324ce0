# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures what a segmenter gives, on few pixels; it goes on where it stopped; peers come through a
folder."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from evaluation.report.card import headlines
from evaluation.report.records import read_record
from evaluation.segmentation.benchmark import __main__ as benchmark
from evaluation.segmentation.benchmark import measure, pixels
from evaluation.segmentation.benchmark.contenders import (
    COMPARED,
    MOST_ROUNDS,
    STOPPED,
    TRIALS,
    Contender,
    feature_makers,
    fit,
    stopped_early,
)
from evaluation.segmentation.benchmark.pixels import Protocol, SegmenterFeatures, make_user, scikit_image_features
from evaluation.segmentation.benchmark.programs import NO_WEIGHTS, Convpaint, WeightsMissing
from evaluation.segmentation.benchmark.sets import Facts, open_set, write_set
from evaluation.segmentation.benchmark.sources import Candidate
from evaluation.segmentation.few_labels import Drawing
from evaluation.semantics.miou import VOID, confusion_matrix

SIDE = 56
WINDOWS = {"components": 4, "window": 56, "overlap": 14}
PROTOCOL = Protocol((Drawing(2, 2, 8, straight=True), Drawing(2, 2, 12)), (1, 2), 2, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A benchmark's folder with a data set of bright discs, some pixels of which are void."""
    random = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE))
    candidates = []
    for number in range(5):
        row, column = random.integers(18, 38, 2)
        mask = ((rows - row) ** 2 + (columns - column) ** 2 < 200).astype(np.uint8)
        grey = (80 + 60 * mask + random.normal(0, 30, mask.shape)).clip(0, 255).astype(np.uint8)
        mask[0] = VOID
        candidates.append(Candidate(f"{number}", np.repeat(grey[..., None], 3, axis=-1), mask))
    folder = tmp_path_factory.mktemp("benchmark")
    write_set(folder / "discs", candidates[:3], candidates[3:], Facts(("ground", "disc"), "made", "none", False))
    return folder


@pytest.fixture
def data(folder):
    return open_set(folder / "discs")


@pytest.fixture
def makers(tmp_path, model_folder):
    cache = FeatureCache(tmp_path / "cache")
    return {
        "both": SegmenterFeatures(load_backbone(model_folder), ClassicalFeatures((1, 2)), cache, WINDOWS),
        "scikit-image": scikit_image_features,
    }


def test_user_draws_on_random_images_and_all_are_tested_on_the_same_pixels(data, monkeypatch):
    monkeypatch.setattr(pixels, "TEST_PIXELS", 100)
    users = [make_user(data, seed, PROTOCOL) for seed in range(6)]
    for user in users:
        assert len(user.images) == 4
        np.testing.assert_array_equal(user.places[2:], users[0].places[2:])
        np.testing.assert_array_equal(user.targets, users[0].targets)
        masks = [data.test.mask(index)[tuple(user.places[2 + index].T)] for index in range(2)]
        np.testing.assert_array_equal(user.targets, np.concatenate(masks))
        assert VOID not in user.targets
        for (drawing, number), labelled in user.labelled.items():
            for index in range(2):
                chosen = labelled.image == index
                maps = np.zeros((SIDE, SIDE), dtype=int)
                maps[tuple(user.places[index][labelled.place[chosen]].T)] = labelled.target[chosen] + 1
                np.testing.assert_array_equal(maps, user.labels[drawing, number][index])
    assert len({user.images[0].tobytes() for user in users}) > 1
    with pytest.raises(ValueError, match="has 3 images to draw on; 4 were asked for"):
        make_user(data, 0, Protocol(PROTOCOL.drawings, (1,), 1, 4))


def test_results_are_those_of_a_segmenter(tmp_path, data, makers, model_folder):
    (matrices,) = measure.measure_set(
        data, "fingerprint", [Contender("ours", "both")], makers, PROTOCOL, tmp_path / "results"
    ).values()
    assert matrices.shape == (2, 2, 2, 2, 2)
    for seed in range(2):
        user = make_user(data, seed, PROTOCOL)
        segmenter = TrainableSegmenter(
            load_backbone(model_folder), ClassicalFeatures((1, 2)), guided_radius=0, seed=seed, **WINDOWS
        )
        for index, way in enumerate(PROTOCOL.ways):
            segmenter.fit(user.images[:2], user.labels[way])
            found = [
                segmenter.predict(image)[tuple(where.T)]
                for image, where in zip(user.images[2:], user.places[2:], strict=True)
            ]
            expected = confusion_matrix(np.concatenate(found) - 1, user.targets, 2)
            # The backbone's features are kept in half precision on disk: a few pixels may change sides.
            assert np.abs(matrices[seed].reshape(-1, 2, 2)[index] - expected).sum() < 0.02 * len(user.targets)


def test_finished_results_are_not_measured_again(tmp_path, data, makers, monkeypatch):
    measured, original = [], measure.measure
    monkeypatch.setattr(measure, "measure", lambda *given: measured.append(given[0].name) or original(*given))
    contenders = [Contender("recipe", "scikit-image", "scikit-image recipe")]

    def run(protocol):
        return measure.measure_set(data, "fingerprint", contenders, makers, protocol, tmp_path / "results")

    short = run(Protocol(PROTOCOL.drawings, (1,), 1, 2))["recipe"]
    assert len(measured) == 2
    longer = run(PROTOCOL)["recipe"]
    assert len(measured) == 8
    np.testing.assert_array_equal(longer[:1, :, :1], short)
    run(PROTOCOL)
    assert len(measured) == 8
    run(Protocol(PROTOCOL.drawings, (1,), 1, 3))
    assert len(measured) == 10


@pytest.mark.parametrize("name", [*COMPARED, STOPPED])
def test_compared_classifiers_learn(name):
    random = np.random.default_rng(0)
    classes = np.arange(400) % 3
    features = (np.eye(3)[classes] * 3 + random.normal(size=(400, 3))).astype(np.float32)
    predict = fit(name, features, classes, 3, 0, np.arange(400) % 2, [np.arange(3)])
    assert (predict(features).argmax(axis=1) == classes).mean() > 0.8


def test_boosting_stops_where_images_that_were_left_out_are_predicted_best():
    random = np.random.default_rng(0)
    classes = np.arange(400) % 2
    told = (classes[:, None] + random.normal(size=(400, 2))).astype(np.float32)
    images = np.arange(400) // 200
    assert stopped_early(told, classes, 0, images).n_estimators < MOST_ROUNDS
    # What tells the classes of one image apart is noise in the other: nothing is the best that can be learned.
    told[:] = random.normal(size=(400, 2))
    assert stopped_early(told, classes, 0, images).n_estimators < 20
    assert stopped_early(told, classes, 0, classes).n_estimators == MOST_ROUNDS


def test_all_trials_can_be_made(tmp_path, model_folder):
    model = load_backbone(model_folder)
    makers = feature_makers(model, model, FeatureCache(tmp_path))
    for contenders in (*TRIALS.values(), benchmark.peers("tiny", True)):
        assert {one.features for one in contenders} <= makers.keys()
        assert len({one.name for one in contenders}) == len(contenders)


STAND_IN = """
import json, sys
import numpy as np
model, folder = sys.argv[1:]
if model == "vgg":
    print("weights cannot be had", file=sys.stderr)
    sys.exit({missing})
if model == "dinov2":
    raise RuntimeError("broken")
images, places = (list(np.load(f"{{folder}}/{{name}}.npz").values()) for name in ("images", "places"))
labels = np.load(f"{{folder}}/labels.npz")
ways = sorted({{name.rsplit("/", 1)[0] for name in labels}})
bright = [(image[tuple(where.T)][:, 0] > 110) + 1 for image, where in zip(images[-len(places):], places)]
np.savez(f"{{folder}}/predictions.npz", **{{way: np.concatenate(bright).astype(np.uint8) for way in ways}})
json.dump({{"stand-in": "1"}}, open(f"{{folder}}/versions.json", "w"))
"""


@pytest.fixture
def stand_in(tmp_path):
    """A program in Convpaint's place that takes what is bright for a disc."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.format(missing=NO_WEIGHTS))
    return script


def test_program_is_given_strokes_and_its_predictions_are_scored(tmp_path, data, stand_in):
    program = Convpaint(sys.executable, "gaussian", stand_in)
    matrices, versions = measure.measure_program(data, "fingerprint", program, PROTOCOL, tmp_path / "results")
    assert versions == {"stand-in": "1"}
    assert matrices.shape == (2, 2, 2, 2, 2)
    user = make_user(data, 0, PROTOCOL)
    bright = [image[tuple(where.T)][:, 0] > 110 for image, where in zip(user.images[2:], user.places[2:], strict=True)]
    expected = confusion_matrix(np.concatenate(bright).astype(int), user.targets, 2)
    np.testing.assert_array_equal(matrices[0, 0, 0], expected)
    # A second time nothing is run.
    again = Convpaint("nowhere", "gaussian", stand_in)
    np.testing.assert_array_equal(
        measure.measure_program(data, "fingerprint", again, PROTOCOL, tmp_path / "results")[0], matrices
    )
    with pytest.raises(WeightsMissing, match="weights cannot be had"):
        measure.measure_program(data, "x", Convpaint(sys.executable, "vgg", stand_in), PROTOCOL, tmp_path / "results")
    with pytest.raises(ValueError, match=r"(?s)Convpaint \(dinov2\) failed.*broken"):
        measure.measure_program(data, "x", Convpaint(sys.executable, "dinov2", stand_in), PROTOCOL, tmp_path)


def run_main(*options) -> int:
    """The exit status of the command."""
    with pytest.raises(SystemExit) as ended:
        benchmark.main([str(option) for option in options])
    return ended.value.code


def test_command_writes_a_record_a_figure_and_tables(tmp_path, folder, model_folder, capsys):
    options = ["--data", folder, "--model", model_folder, "--name", "tiny", "--seeds", 1, "--rounds", 1]
    options += ["--lengths", 8, "--cache", tmp_path / "cache", "--output", tmp_path / "record.json"]
    assert run_main(*options, "--teacher", model_folder, "--figure", tmp_path / "figure.png") == 0
    record = read_record(tmp_path / "record.json")
    assert record["task"] == "segmentation_benchmark"
    assert f"{record['metrics']['tiny + classical/miou_round_1']:.3f}" in capsys.readouterr().out
    assert headlines(record)
    assert {name.split("/")[0] for name in record["metrics"]} == {
        "miou",
        *("tiny + classical", "classical", "tiny alone", "teacher + classical", "teacher alone", "scikit-image"),
    }
    assert record["parameters"]["sets"]["discs"]["classes"] == ["ground", "disc"]
    assert record["command"][:3] == ["python", "-m", "evaluation.segmentation.benchmark"]
    json.dumps(record, allow_nan=False)
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.format == "PNG"


def test_wrong_input_is_refused(tmp_path, folder, model_folder, capsys):
    options = ["--model", model_folder, "--cache", tmp_path / "cache", "--output", tmp_path / "record.json"]
    for wrong, message in (
        (["--data", tmp_path], "no data set of the benchmark"),
        (["--data", folder, "--sets", "rocks"], "no data set of the benchmark"),
        (["--data", folder, "--rounds", 0], "give 1 or more"),
        (["--data", folder, "--rounds", 1, "--train-images", 9], "9 were asked for"),
        (["--data", folder, "--rounds", 1, "--seeds", 1, "--peers", tmp_path / "no-python"], "no-python"),
    ):
        assert run_main(*options, *wrong) == 2, wrong
        assert message in capsys.readouterr().err, wrong
        assert not (tmp_path / "record.json").exists()
