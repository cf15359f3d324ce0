# SPDX-License-Identifier: Apache-2.0
"""A session learns and predicts what the segmenter does, computes nothing twice, and leaves no thread."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import alibi_dinov2
from alibi_dinov2.features import deep_features
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.segmentation import image_features
from alibi_dinov2.segmentation.pixel_features import PixelFeatures
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from alibi_dinov2.segmentation.session import Session
from tests.alibi_dinov2.segmentation.materials import CLASSICAL, IMAGE, LABELS, TRUTH, materials, scribbles

WHOLE = (slice(0, 80), slice(0, 96))
STACK = np.stack([IMAGE, *(materials(seed)[0] for seed in (3, 4))])
MORE = np.where(LABELS > 0, LABELS, scribbles(TRUTH, seed=1))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks in an image of 80×96 pixels."""
    original = PixelFeatures.__init__
    monkeypatch.setattr(
        PixelFeatures, "__init__", lambda self, *given, **named: original(self, *given, **({"block_size": 32} | named))
    )


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [thread.name for thread in threading.enumerate() if "session" in thread.name]


@pytest.fixture
def computed(monkeypatch):
    """What was computed: `deep` for a window, `classical` for a block."""
    found = []
    forward, filters = deep_features.dense_features, ClassicalFeatures.__call__
    monkeypatch.setattr(deep_features, "dense_features", lambda *given: found.append("deep") or forward(*given))
    monkeypatch.setattr(ClassicalFeatures, "__call__", lambda *given: found.append("classical") or filters(*given))
    return found


@pytest.mark.parametrize("classifier", ["xgboost", "random-forest", "stroke-forest", "logistic-regression"])
def test_it_learns_and_predicts_what_the_segmenter_does(hybrid, classifier):
    expected = hybrid(classifier=classifier).fit(IMAGE, LABELS)
    with Session(hybrid(classifier=classifier), IMAGE) as session:
        session.start().result()
        assert session.learn(LABELS) is session
        found = session.probabilities(0, *WHOLE)
        np.testing.assert_array_equal(found, expected.predict_proba(IMAGE))
        np.testing.assert_array_equal(session.probabilities(0, slice(9, 50), slice(40, 41)), found[9:50, 40:41])
        np.testing.assert_array_equal(session.probabilities(0, slice(-30, None), slice(90, 200)), found[50:, 90:])
        np.testing.assert_array_equal(session.predict_slice(0).result(), expected.predict(IMAGE))
        np.testing.assert_array_equal(session.segmenter.predict(IMAGE), expected.predict(IMAGE))
        more = expected.fit(IMAGE, MORE).predict_proba(IMAGE)
        np.testing.assert_array_equal(session.learn(MORE).probabilities(0, *WHOLE), more)


def test_it_works_without_either_kind_of_features(hybrid):
    for settings in ({"classical": None}, {"backbone": None}):
        expected = hybrid().set_params(**settings).fit(IMAGE, LABELS)
        with Session(hybrid().set_params(**settings), IMAGE) as session:
            session.start().result()
            found = session.learn(LABELS).probabilities(0, *WHOLE)
        np.testing.assert_array_equal(found, expected.predict_proba(IMAGE))


def test_slices_without_labels_have_no_part_in_learning(hybrid):
    labels = np.stack([LABELS, np.zeros_like(LABELS), scribbles(materials(4)[1])])
    expected = hybrid().fit([STACK[0], STACK[2]], labels[[0, 2]])
    with Session(hybrid(), STACK) as session:
        wait([session.start(index) for index in range(3)])
        session.learn(labels)
        for index in range(3):
            np.testing.assert_array_equal(session.probabilities(index, *WHOLE), expected.predict_proba(STACK[index]))


def test_colours_are_seen_once_strokes_have_some():
    image = np.stack([IMAGE] * 3, axis=-1)
    image[40:, :, 0] = 255 - image[40:, :, 0]
    above, below = np.where(np.arange(80)[:, None] < 32, LABELS, 0), LABELS
    with Session(TrainableSegmenter(classical=CLASSICAL), image) as session:
        session.start().result()
        for labels in (above, below, above):
            expected = TrainableSegmenter(classical=CLASSICAL).fit(image, labels)
            found = session.learn(labels).probabilities(0, *WHOLE)
            np.testing.assert_array_equal(found, expected.predict_proba(image))


def test_nothing_is_computed_twice(hybrid, computed):
    with Session(hybrid(), IMAGE) as session:
        done = []
        session.start(progress=lambda *counts: done.append(counts)).result()
        assert sorted(computed) == ["classical"] * 9 + ["deep"] * 5
        assert done == [(number, 14) for number in range(15)]
        for labels in (LABELS, MORE):
            session.learn(labels).probabilities(0, *WHOLE)
            session.predict_slice(0).result()
        session.pca(0)
        session.similarity(0, 1, 1)
        session.start(0).result()
        assert len(computed) == 14


def test_threads_that_want_the_same_wait_for_each_other(hybrid, computed):
    with Session(hybrid(), IMAGE) as session, ThreadPoolExecutor(4) as pool:
        started = session.start()
        session.learn(LABELS)
        found = list(pool.map(lambda _: session.probabilities(0, *WHOLE), range(8)))
        started.result()
        assert sorted(computed) == ["classical"] * 9 + ["deep"] * 5
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])


def test_a_region_needs_only_what_lies_under_it(hybrid, computed):
    with Session(hybrid(guided_radius=0), np.tile(IMAGE, (4, 4))) as session:
        labels = np.zeros((320, 384), dtype=np.uint8)
        labels[:28, :28] = TRUTH[:28, :28]
        labels[0, 0] = 3 - labels[0, 1]
        session.learn(labels).probabilities(0, slice(0, 28), slice(0, 28))
        assert sorted(computed) == ["classical", *["deep"] * 2]  # at two scales
        session.probabilities(0, slice(28), slice(33))
        assert sorted(computed) == ["classical"] * 2 + ["deep"] * 3  # up to the patch beside the region


def test_before_all_is_seen_answers_are_sensible_and_afterwards_exact(hybrid):
    image, truth = np.tile(IMAGE, (3, 3)), np.tile(TRUTH, (3, 3))
    labels = np.zeros_like(truth)
    labels[:80, :96] = LABELS
    expected = hybrid().fit(image, labels)
    with Session(hybrid(), image) as session:
        early = session.learn(labels).probabilities(0, *WHOLE).argmax(axis=-1) + 1
        assert (early == expected.predict(image)[WHOLE]).mean() > 0.9
        session.start().result()
        np.testing.assert_array_equal(
            session.learn(labels).probabilities(0, slice(None), slice(None)), expected.predict_proba(image)
        )


def test_what_is_nearest_comes_first(monkeypatch):
    seen = []
    original = image_features.ImageFeatures.classical
    monkeypatch.setattr(
        image_features.ImageFeatures, "classical", lambda self, *given: seen.append(given[1]) or original(self, *given)
    )
    with Session(TrainableSegmenter(classical=CLASSICAL), np.tile(IMAGE, (2, 2))) as session:

        def move(done, total):
            if done == 2:
                session.focus((slice(0, 32), slice(0, 32)))

        session.start(0, (slice(128, 160), slice(160, 192)), move).result()
    corner = [(block[0].start, block[1].start) for block in seen]
    assert corner[0] == (128, 160)
    assert corner[2] == (0, 0)
    assert len(corner) == 30


def test_no_more_is_kept_than_allowed(hybrid):
    expected = hybrid().fit(IMAGE, LABELS)
    limit = 200_000  # of 130,000 bytes for a window and some 18,000 for a block
    with Session(hybrid(), IMAGE, cache_bytes=limit) as session:
        counts = []
        session.start(progress=lambda *given: counts.append(given)).result()
        assert 1 <= counts[-1][0] < 14
        assert 0 < session.features.kept.bytes <= limit
        np.testing.assert_array_equal(session.learn(LABELS).predict_slice(0).result().shape, (80, 96))
        assert session.features.kept.bytes <= limit
        np.testing.assert_array_equal(session.predict_slice(0).result(), expected.predict(IMAGE))


def test_work_can_be_cancelled_at_any_time(hybrid):
    with Session(hybrid(), IMAGE) as session:
        first = session.start(progress=lambda done, total: first.cancel() if done == 2 else None)
        with pytest.raises(CancelledError):
            first.result(timeout=60)
        session.learn(LABELS)
        waiting = [session.predict_slice(0) for _ in range(5)]
        session.cancel()
        for future in waiting:
            assert future.cancelled() or future.done()
        assert session.predict_slice(0).result().shape == (80, 96)
    running = Session(hybrid(), IMAGE)
    future = running.start()
    running.close()
    assert future.cancelled() or future.done()
    with pytest.raises(ValueError, match="closed"):
        running.start()


def test_what_fails_in_the_background_is_seen_at_its_future(hybrid, monkeypatch):
    with Session(hybrid(), IMAGE) as session:
        with monkeypatch.context() as patch:
            patch.setattr(deep_features, "dense_features", lambda *_: iter([np.full((4, 4, 48), np.nan)]))
            with pytest.raises(ValueError, match="not finite"):
                session.start().result()

        def impatient(done, total):
            raise RuntimeError("the window is gone")

        with pytest.raises(RuntimeError, match="window is gone"):
            session.start(progress=impatient).result()
        session.start().result()
        session.learn(LABELS)


def test_what_cannot_be_learned_is_refused_and_changes_nothing(hybrid):
    with Session(hybrid(class_names=["smooth", "rough"]), IMAGE) as session:
        for use in (lambda: session.probabilities(0, *WHOLE), lambda: session.predict_slice(0)):
            with pytest.raises(NotFittedError, match="call `learn`"):
                use()
        before = session.learn(LABELS).probabilities(0, *WHOLE)
        three = LABELS.copy()
        three[0, 0] = 3
        for labels, message in (
            (np.zeros_like(LABELS), "mark nothing"),
            (np.where(LABELS == 1, 1, 0), "mark only class 1"),
            (LABELS[1:], "but image 1 is one of"),
            (three, "2 class names"),
        ):
            with pytest.raises(ValueError, match=message):
                session.learn(labels)
            np.testing.assert_array_equal(session.probabilities(0, *WHOLE), before)
        for use in (lambda: session.start(1), lambda: session.probabilities(-1, *WHOLE), lambda: session.pca(7)):
            with pytest.raises(ValueError, match="There is no slice"):
                use()
        with pytest.raises(ValueError, match="has no pixels"):
            session.probabilities(0, slice(80, 90), slice(0, 4))
        with pytest.raises(ValueError, match="lies outside"):
            session.similarity(0, 80, 0)
    with pytest.raises(ValueError, match="a session has one"):
        Session(hybrid(), [IMAGE, IMAGE])


def test_settings_may_change_between_strokes(hybrid):
    with Session(hybrid(), IMAGE) as session:
        session.learn(LABELS)
        session.segmenter.set_params(classical=None, components=2, classifier="logistic-regression")
        session.start().result()
        session.learn(LABELS)
        session.start().result()
        found = session.learn(LABELS).probabilities(0, *WHOLE)
    expected = hybrid(classical=None, components=2, classifier="logistic-regression").fit(IMAGE, LABELS)
    np.testing.assert_array_equal(found, expected.predict_proba(IMAGE))


def test_a_fitted_segmenter_predicts_at_once_and_keeps_its_contrast(hybrid):
    deep = (40 * IMAGE.astype(np.uint16)) + 1000
    fitted = hybrid().fit(deep, LABELS)
    other = deep[:, ::-1] + 300
    expected, contrast = fitted.predict_proba(other), fitted.contrast_
    with Session(fitted, other) as session:
        np.testing.assert_array_equal(session.probabilities(0, *WHOLE), expected)
        session.learn(LABELS[:, ::-1])
        assert fitted.contrast_ == contrast


def test_pictures_of_features(hybrid):
    with Session(hybrid(), IMAGE) as session:
        assert session.pca(0).shape == (6, 7, 3)
        similar = session.similarity(0, 70, 3)
        assert similar.shape == (6, 7)
        assert similar[5, 0] == pytest.approx(1, abs=1e-5)
        assert similar.min() >= -1
    with (
        Session(TrainableSegmenter(classical=CLASSICAL), IMAGE) as session,
        pytest.raises(ValueError, match="no backbone"),
    ):
        session.pca(0)


def test_it_is_a_public_name():
    assert alibi_dinov2.Session is Session


def test_a_glance_is_what_every_second_pixel_has(hybrid):
    with Session(hybrid(guided_radius=0), IMAGE) as session:
        session.learn(LABELS)
        assert len(session.features.blocks()) > 1
        rows, columns = slice(5, None), slice(6, None)
        found = session.probabilities(0, rows, columns, step=2)
        expected = session.probabilities(0, rows, columns)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
    classified = expected[1::2, 1::2]
    for row in (0, 1):
        for column in (0, 1):
            part = found[row::2, column::2][: classified.shape[0], : classified.shape[1]]
            np.testing.assert_array_equal(part, classified)


def test_a_glance_at_a_strip_narrower_than_its_step(hybrid):
    with Session(hybrid(guided_radius=0), IMAGE) as session:
        session.learn(LABELS)
        rows, columns = slice(7, 8), slice(0, 50)
        found = session.probabilities(0, rows, columns, step=8)
        expected = session.probabilities(0, rows, columns)
        np.testing.assert_array_equal(found[0, :8], expected[0, 4:5].repeat(8, axis=0))
        with pytest.raises(ValueError, match="The step is 0"):
            session.probabilities(0, rows, columns, step=0)
