# SPDX-License-Identifier: Apache-2.0
"""Confusion matrices of contenders on a data set, a file for each of what was measured, so that runs can be stopped."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from alibi_dinov2.io.files import write_json
from alibi_dinov2.segmentation.saved_segmenter import library_versions
from evaluation.segmentation.benchmark.contenders import Contender, fit
from evaluation.segmentation.benchmark.pixels import (
    TEST_PIXELS,
    Features,
    Protocol,
    Seen,
    User,
    Way,
    make_user,
)
from evaluation.segmentation.benchmark.programs import Convpaint
from evaluation.segmentation.benchmark.sets import DataSet
from evaluation.semantics.miou import confusion_matrix

CODE = 2  # raised when classifiers or features change, so that what was measured before does not count


class Results:
    """Confusion matrices on disk, one file for a contender, a user and a way of drawing.

    Args:
        folder: for the files.
        identity: all that the matrices depend on beside, as JSON values.
    """

    def __init__(self, folder: Path, identity: object) -> None:
        self.folder, self.identity = folder, identity

    def path(self, contender: Mapping[str, object], seed: int, way: Way) -> Path:
        facts = [self.identity, dict(contender), seed, [way[0].length, way[0].width, way[0].straight, way[1]]]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
        return self.folder / f"{digest}.json"

    def missing(self, contender: Mapping[str, object], seed: int, ways: Sequence[Way]) -> list[Way]:
        return [way for way in ways if not self.path(contender, seed, way).is_file()]

    def read(self, contender: Mapping[str, object], protocol: Protocol) -> np.ndarray:
        """`(seeds, drawings, rounds, K, K)` int64, all of which have been written."""
        shape = (protocol.seeds, len(protocol.drawings), len(protocol.rounds))
        files = [self.path(contender, seed, way) for seed in range(protocol.seeds) for way in protocol.ways]
        found = np.array([json.loads(file.read_text(encoding="utf-8")) for file in files])
        return found.reshape(*shape, *found.shape[1:])


def contender_facts(contender: Contender, features: Features) -> dict[str, object]:
    """What the results of a contender depend on: its classifier, and the facts of its features."""
    facts = getattr(features, "facts", contender.features)
    return {"classifier": contender.classifier, "views": contender.views, "features": facts, "code": CODE}


def measure_set(
    data: DataSet,
    fingerprint: str,
    contenders: Sequence[Contender],
    makers: Mapping[str, Features],
    protocol: Protocol,
    folder: Path,
) -> dict[str, np.ndarray]:
    """Confusion matrices of contenders on a data set, `(seeds, drawings, rounds, K, K)`, by their names.

    Args:
        data: to draw and to test on.
        fingerprint: of its images and masks.
        contenders: what is compared.
        makers: from `feature_makers`.
        protocol: how much is measured.
        folder: for finished results, which are not computed again.
    """
    results = Results(folder, [fingerprint, protocol.train_images, library_versions()])
    facts = {one.name: contender_facts(one, makers[one.features]) for one in contenders}
    todo = {
        (one, seed): missing
        for seed in range(protocol.seeds)
        for one in contenders
        if (missing := results.missing(facts[one.name], seed, protocol.ways))
    }
    with tqdm(total=sum(map(len, todo.values())), desc=data.name, unit="fit", disable=not todo) as bar:
        for seed in sorted({seed for _, seed in todo}):
            user = make_user(data, seed, protocol)
            seen: dict[str, Seen] = {}
            for one in contenders:
                for way in todo.get((one, seed), ()):
                    if one.features not in seen:
                        seen[one.features] = makers[one.features](user.images, user.places, user.drawn)
                    matrix = measure(one, seen[one.features], user, way, len(data.facts.classes), seed)
                    write_json(results.path(facts[one.name], seed, way), matrix.tolist())
                    bar.update()
    return {one.name: results.read(facts[one.name], protocol) for one in contenders}


def measure(contender: Contender, seen: Seen, user: User, way: Way, classes: int, seed: int) -> np.ndarray:
    """The confusion matrix `(K, K)` of a contender on the tested pixels of a user, from the strokes drawn in a way."""
    labelled = user.labelled[way]
    learned = [
        found[labelled.place[labelled.image == index]] for index, found in enumerate(seen.features[: user.drawn])
    ]
    predict = fit(
        contender.classifier,
        np.concatenate(learned),
        labelled.target,
        classes,
        seed,
        labelled.image,
        list(seen.views) if contender.views else [],
    )
    predicted = predict(np.concatenate(seen.features[user.drawn :])).argmax(axis=1)
    return confusion_matrix(predicted, user.targets, classes)


def measure_program(
    data: DataSet, fingerprint: str, program: Convpaint, protocol: Protocol, folder: Path
) -> tuple[np.ndarray, dict[str, str]]:
    """The same of a peer that is a program of its own, and the versions of its libraries.

    Raises:
        WeightsMissing, ValueError, OSError: as `Convpaint`.
    """
    results, contender = Results(folder, [fingerprint, protocol.train_images]), {"convpaint": program.model}
    versions_file = folder / f"convpaint-{program.model}.json"
    for seed in tqdm(range(protocol.seeds), f"{data.name}, Convpaint", unit="user"):
        missing = results.missing(contender, seed, protocol.ways)
        if not missing and versions_file.is_file():
            continue
        user = make_user(data, seed, protocol)
        names = {str(number): way for number, way in enumerate(missing)}
        labels = {name: user.labels[way] for name, way in names.items()}
        predictions, versions = program(user.images, labels, user.places[user.drawn :])
        for name, way in names.items():
            # Convpaint numbers classes as the labels do, from 1.
            matrix = confusion_matrix(predictions[name].astype(int) - 1, user.targets, len(data.facts.classes))
            write_json(results.path(contender, seed, way), matrix.tolist())
        write_json(versions_file, versions)
    return results.read(contender, protocol), json.loads(versions_file.read_text(encoding="utf-8"))


def describe_protocol(protocol: Protocol) -> dict[str, object]:
    """The protocol as JSON values, for records."""
    return {
        "drawings": [asdict(drawing) for drawing in protocol.drawings],
        "rounds": list(protocol.rounds),
        "seeds": protocol.seeds,
        "train_images": protocol.train_images,
        "test_pixels": TEST_PIXELS,
    }
