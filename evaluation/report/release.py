# SPDX-License-Identifier: Apache-2.0
"""A model's folder and the built page -> all that is published of a model: model, ONNX model and page, and to the Hub.

    python -m evaluation.report.release --model model_cards/alibi-dinov2-small --page web --namespace NAMESPACE \\
        --output release
    python -m evaluation.report.release --model model_cards/alibi-dinov2-small --page web --namespace NAMESPACE \\
        --output release --push

Writes `models/NAME`, `models/NAME-ONNX` and `spaces/NAME`, which name each other by what they will be called on the
Hub. The page is built beforehand (`npm run build` in its folder). With `--push` the three go there; a folder that the
command has written before is pushed as it is, so that one may look first, or go on after a refusal. Without `--push`
nothing leaves the machine.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import RepoCard
from tqdm import tqdm

from alibi_dinov2.command import run
from alibi_dinov2.features.weights import files_sha256, weights_files
from alibi_dinov2.io.files import new_folder, require_new_folder, write_json
from alibi_dinov2.io.images import find_images
from evaluation.command import plain_parser
from evaluation.report.hub import push_folder
from evaluation.report.publish import publish, read_model_facts
from training.export_onnx import IMAGES, export_onnx
from training.onnx_card import write_card

RELEASE = "release.json"
BUILT, PAGE_CONFIG = "dist", "config.json"
BUILD_COMMAND = "app_build_command"  # of a Space's metadata


class Repository(NamedTuple):
    """One of the repositories of a release: its folder below the release's, its id on the Hub, and its type there."""

    folder: str
    id: str
    type: str


def repositories(name: str, namespace: str) -> list[Repository]:
    """The repositories of a model's release, in the order of pushing them: what one needs is there before it."""
    return [
        Repository(f"models/{name}", f"{namespace}/{name}", "model"),
        Repository(f"models/{name}-ONNX", f"{namespace}/{name}-ONNX", "model"),
        Repository(f"spaces/{name}", f"{namespace}/{name}", "space"),
    ]


def write_release(model_folder: Path, page: Path, namespace: str, output: Path, images: Sequence[Path]) -> None:
    """Write the folders of all repositories; on an error none.

    Args:
        model_folder: of the model, as `training.export` makes it, with records and examples.
        page: folder of the page, with `README.md`, whose metadata are a Space's, and what was built from it in `dist`.
        namespace: user or organisation of the Hub.
        output: folder to make.
        images: on which the ONNX model is compared with PyTorch.

    Raises:
        FileExistsError: `output` is a folder with something in it.
        FileNotFoundError: the page is not built, or the folder of the model is none.
        ValueError: something is wrong with the model, see `publish` and `export_onnx`, or with the page's metadata.
    """
    require_new_folder(output)
    read_model_facts(model_folder)
    card = page_card(page)
    name = model_folder.resolve().name
    model, onnx, space = repositories(name, namespace)
    with new_folder(output) as folder, tqdm(total=3, desc="release", unit="repository") as bar:
        shutil.copytree(model_folder, folder / model.folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        publish(folder / model.folder, repo_id=model.id)
        bar.update()
        export_onnx(folder / model.folder, folder / onnx.folder, images)
        write_card(folder / onnx.folder, onnx.id, model.id)
        bar.update()
        write_space(page, card, folder / space.folder, onnx.id)
        bar.update()
        write_json(folder / RELEASE, release_facts(model_folder, namespace))


def release_facts(model_folder: Path, namespace: str) -> dict[str, Any]:
    """What a release is of: the model's name and weights, and the namespace that its parts name each other by."""
    weights = files_sha256(weights_files(model_folder))
    return {"model": model_folder.resolve().name, "weights_sha256": weights, "namespace": namespace}


def page_card(page: Path) -> RepoCard:
    """The card of a built page, whose metadata are those of a static Space.

    Raises:
        FileNotFoundError: the page is not built.
        ValueError: the metadata are of something else.
    """
    needed = ("README.md", f"{BUILT}/index.html", f"{BUILT}/{PAGE_CONFIG}")
    if missing := [name for name in needed if not (page / name).is_file()]:
        raise FileNotFoundError(f"{page} lacks {', '.join(missing)}; build the page there: npm ci && npm run build.")
    card = RepoCard.load(page / "README.md", ignore_metadata_errors=True)
    metadata = card.data.to_dict()
    sdk, start = metadata.get("sdk"), metadata.get("app_file", "index.html")
    if sdk != "static" or not (page / start).is_file():
        raise ValueError(
            f"The metadata of {page / 'README.md'} say sdk: {sdk} and app_file: {start}; a static Space has sdk: "
            f"static and an app_file that is there, such as {BUILT}/index.html."
        )
    return card


def write_space(page: Path, card: RepoCard, folder: Path, model_id: str) -> None:
    """Write the folder of a static Space: the page as it is built, loading a model of the Hub.

    Args:
        page: see `write_release`.
        card: the page's.
        folder: to make.
        model_id: Hub id of the ONNX model.
    """
    # Only what was built goes to the Hub, and it finds the model there.
    shutil.copytree(page / BUILT, folder / BUILT, ignore=shutil.ignore_patterns(".*", "models"))
    write_json(folder / BUILT / PAGE_CONFIG, {"model": model_id})
    card.data["models"] = [model_id]
    if BUILD_COMMAND in card.data.to_dict():
        card.data.pop(BUILD_COMMAND)
    (folder / "README.md").write_text(f"{card}\n", encoding="utf-8")


def require_release(output: Path, model_folder: Path, namespace: str) -> None:
    """Raise a `ValueError` unless a folder holds what `write_release` would write of a model, as far as weights go."""
    path = output / RELEASE
    expected = release_facts(model_folder, namespace)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if found != expected:
        raise ValueError(
            f"{output} is {f'a release of {found}' if found else 'no release'}, not of {expected}. Give another "
            "--output, or remove this folder."
        )


def push_release(output: Path, name: str, namespace: str, endpoint: str | None = None) -> list[str]:
    """Bring the folders of a release to the Hub, one after the other; see `push_folder`, whose errors it raises.

    Returns:
        The addresses of the commits.
    """
    return [
        push_folder(output / repository.folder, repository.id, endpoint, repository.type)
        for repository in tqdm(repositories(name, namespace), desc="to the Hub", unit="repository")
    ]


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = plain_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder, as training.export makes it")
    parser.add_argument("--page", type=Path, required=True, help="the page's folder, with README.md and dist")
    parser.add_argument("--namespace", required=True, help="user or organisation of the Hub that it will belong to")
    parser.add_argument("--output", type=Path, required=True, help="folder to make, or one that was made before")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of images to compare ONNX with PyTorch on")
    parser.add_argument("--push", action="store_true", help="upload the three folders to the Hub")
    return parser


def command(arguments: argparse.Namespace) -> None:
    """What the options ask for."""
    output, name = arguments.output, arguments.model.resolve().name
    if arguments.push and output.is_dir() and any(output.iterdir()):
        require_release(output, arguments.model, arguments.namespace)
    else:
        images = find_images(arguments.images)
        write_release(arguments.model, arguments.page, arguments.namespace, output, images)
    addresses: Sequence[str | None] = [None] * 3
    if arguments.push:
        addresses = push_release(output, name, arguments.namespace)
    for repository, address in zip(repositories(name, arguments.namespace), addresses, strict=True):
        size = sum(path.stat().st_size for path in (output / repository.folder).rglob("*") if path.is_file()) / 1e6
        state = f"uploaded and verified, {address}" if address else "written"
        print(f"{repository.folder:<32}{repository.type:<7}{size:7.1f} MB  {state}")


def main(argv: Sequence[str] | None = None) -> None:
    run(make_parser(), command, argv)


if __name__ == "__main__":
    main()
