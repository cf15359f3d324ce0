# SPDX-License-Identifier: Apache-2.0
"""Result records -> model card, and on demand the model's folder to the Hub.

    python -m evaluation.report.publish model_cards/alibi-dinov2-small --records results/alibi \\
        --compare results/teacher --figures figures --examples data/micrographs
    python -m evaluation.report.publish model_cards/alibi-dinov2-small --push NAMESPACE/alibi-dinov2-small

The folder is a model's, as `training.export` makes it. Records, comparisons and pictures are copied into it
(`results/`, `compared/`, `figures/`, `examples/`), and its card `README.md` is rendered from what is there: without any
option it is made again. So are the pictures of what the model makes of the examples (`outputs/`) and `notebook.ipynb`.
Records must be of the weights in the folder. Without `--push` nothing leaves the machine.
"""

import argparse
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

from alibi_dinov2.command import run
from alibi_dinov2.features.weights import files_sha256, weights_files
from alibi_dinov2.io.files import new_file, new_folder, write_json
from alibi_dinov2.io.images import find_images
from evaluation.command import plain_parser
from evaluation.report.card import headlines, render_card
from evaluation.report.hub import push_folder
from evaluation.report.model_page import draw_features, render_notebook
from evaluation.report.records import read_records

PROVENANCE = "provenance.json"
PROVENANCE_FIELDS = ("summary", "weights", "license", "base_model")
CAPTIONS = "captions.json"
NOTEBOOK = "notebook.ipynb"


def publish(
    folder: Path,
    records: Sequence[Path] = (),
    compare: Sequence[Path] = (),
    figures: Path | None = None,
    examples: Path | None = None,
    repo_id: str | None = None,
) -> None:
    """Gather records and pictures in a model's folder and write its card. Nothing is written unless all of it is right.

    Args:
        folder: with weights, `config.json` and `provenance.json`.
        records: result records of this model, or folders with them; they join those in `folder/results`, and
            replace those of the same file name.
        compare: records of other models, for columns of their own; they replace those in `folder/compared`.
        figures: folder with pictures for the card, `captions.json` (picture -> caption) and a LICENSE file; it replaces
            `folder/figures`.
        examples: folder with images for the Hub's widget and a LICENSE file; it replaces `folder/examples`. Where the
            folder holds this package's code, their features are drawn into `folder/outputs` and a notebook is written.
        repo_id: where the model is to live on the Hub, for the card's example; the folder's name if not given.

    Raises:
        FileNotFoundError: something that is needed is not there.
        ValueError: a record is incomplete, or not of these weights; the message names the file and the reason.
    """
    config, provenance = read_model_facts(folder)
    weights = files_sha256(weights_files(folder))
    added, others = named(read_records(records)), named(read_records(compare), prefix=True)
    own = named(read_records(existing(folder / "results"))) | added
    require_records_of(own, weights)
    captions = read_captions(figures or folder / "figures")
    source = examples or folder / "examples"
    images = licensed_images(source)
    name = repo_id or folder.resolve().name
    page = bool(images) and "auto_map" in config
    card = render_card(
        name,
        config,
        provenance,
        weights,
        [record for _, record in own.values()],
        [record for _, record in (others or named(read_records(existing(folder / "compared")))).values()],
        {f"figures/{name}": caption for name, caption in captions.items()},
        {f"examples/{image}": f"outputs/{Path(image).stem}.png" if page else None for image in images},
    )
    if page:
        with new_folder(folder / "outputs", replace=True) as temporary:
            draw_features(folder, [source / image for image in images], temporary)
            copy_licences(source, temporary)
        with new_file(folder / NOTEBOOK) as temporary:
            temporary.write_text(render_notebook(name, config["patch_size"]), encoding="utf-8")
    for file, (_, record) in added.items():
        write_json(folder / "results" / file, record)
    if others:
        with new_folder(folder / "compared", replace=True) as temporary:
            for file, (_, record) in others.items():
                write_json(temporary / file, record)
    if figures:
        copy_pictures(figures, [*captions, CAPTIONS], folder / "figures")
    if examples:
        copy_pictures(examples, images, folder / "examples")
    with new_file(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")


def read_model_facts(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and provenance of a model's folder.

    Raises:
        FileNotFoundError: it is no such folder.
        ValueError: the provenance is incomplete.
    """
    missing = [name for name in (CONFIG_NAME, PROVENANCE) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}; make it with `python -m training.export`, or for a model of others "
            f"write {PROVENANCE} with {', '.join(PROVENANCE_FIELDS)}."
        )
    config, provenance = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (CONFIG_NAME, PROVENANCE))
    if lacking := [name for name in PROVENANCE_FIELDS if name not in provenance]:
        raise ValueError(f"{folder / PROVENANCE} lacks {', '.join(lacking)}.")
    return config, provenance


def existing(folder: Path) -> list[Path]:
    """A folder, if it is there and holds a record."""
    return [folder] if any(folder.glob("*.json")) else []


def named(records: dict[Path, dict[str, Any]], prefix: bool = False) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Records and where they were read, by the names of their files.

    Args:
        prefix: whether a name is to begin with that of the model, as those from several folders may be alike otherwise.

    Raises:
        ValueError: two of them have the same name, or a table cannot show one.
    """
    files: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path, record in records.items():
        model = re.sub(r"[^\w.-]+", "_", record["model"]["name"])
        name = f"{model}-{path.name}" if prefix and not path.name.startswith(f"{model}-") else path.name
        try:
            headlines(record)
        except ValueError as error:
            raise ValueError(f"{path} cannot be shown: {error}") from error
        if name in files:
            raise ValueError(f"{files[name][0]} and {path} would both be copied as {name}. Rename one.")
        files[name] = (path, record)
    return files


def require_records_of(records: dict[str, tuple[Path, dict[str, Any]]], weights_sha256: str) -> None:
    """Raise a `ValueError` that names the file unless all records are of these weights and of one model.

    A removal of positional bias (`evaluation.removals`) makes another model of the same weights.
    """
    known: set[tuple[str, str | None]] = set()
    for path, record in records.values():
        model = record["model"]
        if model["weights_sha256"] != weights_sha256:
            raise ValueError(
                f"{path} was measured on other weights ({model['name']}, SHA-256 {model['weights_sha256'][:12]}…) than "
                f"those in the folder ({weights_sha256[:12]}…). Measure these weights, or give it with --compare."
            )
        known.add((model["name"], model.get("removal", {}).get("name")))
        if len(known) > 1:
            names = " and ".join(sorted(map(called, known)))
            raise ValueError(
                f"{path} is of another model of the same weights: {names}. Give the records of one, and those of the "
                "others with --compare."
            )


def called(model: tuple[str, str | None]) -> str:
    """A model's name in a message, with that of what is done to its features."""
    name, removal = model
    return f"{name} with {removal}" if removal else name


def read_captions(folder: Path) -> dict[str, str]:
    """Captions by the names of a folder's pictures, in the order of its `captions.json`; none without such a folder.

    Raises:
        FileNotFoundError: it has no captions, no licence, or not all the pictures.
    """
    if not folder.is_dir():
        return {}
    licensed_images(folder)
    if not (folder / CAPTIONS).is_file():
        raise FileNotFoundError(f'{folder} has no {CAPTIONS}; write one, such as {{"pca.png": "What it shows."}}.')
    captions = json.loads((folder / CAPTIONS).read_text(encoding="utf-8"))
    if missing := [name for name in captions if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder / CAPTIONS} names {', '.join(missing)}, which is not there.")
    return captions


def licensed_images(folder: Path) -> list[str]:
    """The images of a folder by their names in it; none without such a folder.

    Raises:
        FileNotFoundError: there is no image, or no licence beside them.
    """
    if not folder.is_dir():
        return []
    names = [path.relative_to(folder).as_posix() for path in find_images(folder)]
    if not any(folder.glob("LICENSE*")):
        raise FileNotFoundError(f"{folder} has no LICENSE file; pictures that are published need source and licence.")
    return names


def copy_pictures(source: Path, names: Iterable[str], target: Path) -> None:
    """Copy pictures and the licence beside them; `target` is replaced as a whole."""
    with new_folder(target, replace=True) as temporary:
        for name in names:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, temporary / name)
        copy_licences(source, temporary)


def copy_licences(source: Path, target: Path) -> None:
    """Copy the licence of a folder's pictures."""
    for path in source.glob("LICENSE*"):
        shutil.copyfile(path, target / path.name)


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = plain_parser(__doc__)
    parser.add_argument("folder", type=Path, help="the model's folder, as training.export makes it")
    parser.add_argument("--records", type=Path, nargs="+", default=[], help="records of this model, or folders of them")
    parser.add_argument("--compare", type=Path, nargs="+", default=[], help="records of other models, for the table")
    parser.add_argument("--figures", type=Path, help=f"folder with pictures, {CAPTIONS} and a LICENSE file")
    parser.add_argument("--examples", type=Path, help="folder with images for the widget and a LICENSE file")
    parser.add_argument("--push", metavar="REPO_ID", help="upload the folder to this repository of the Hub")
    return parser


def command(arguments: argparse.Namespace) -> None:
    """What the options ask for."""
    folder = arguments.folder
    publish(folder, arguments.records, arguments.compare, arguments.figures, arguments.examples, arguments.push)
    print(f"{folder / 'README.md'}: written")
    if arguments.push:
        print(f"{push_folder(folder, arguments.push)}: uploaded and verified")


def main(argv: Sequence[str] | None = None) -> None:
    run(make_parser(), command, argv)


if __name__ == "__main__":
    main()
