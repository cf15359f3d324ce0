# SPDX-License-Identifier: Apache-2.0
"""What files are called, and which labels or masks belong to which image: those of the same name but for the suffix.

Names are compared in one Unicode normal form, since some file systems write `é` as one character and others as two.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from alibi_dinov2.io.images import IMAGE_SUFFIXES, find_images


def normal(name: str | Path) -> str:
    """A name in the form in which names are compared: slashes between folders, Unicode normal form C."""
    return unicodedata.normalize("NFC", Path(name).as_posix())


def named_paths(
    given: Sequence[Path], output: Path | None = None, suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> dict[Path, Path]:
    """Files by what they are called: files by their name, those of folders by their path in them.

    Args:
        given: files and folders.
        output: folder for results; what lies in it is left out.
        suffixes: of the files that are looked for in folders.

    Raises:
        FileNotFoundError: there is no such file or folder, or a folder without an image.
        ValueError: two different files have one name, or a file or folder lies in `output`.
    """
    found: dict[str, tuple[Path, Path]] = {}
    inside = output.resolve() if output else None
    for source in given:
        if inside and inside in (source.resolve(), *source.resolve().parents):
            raise ValueError(f"{source} lies in {output}, where results would be mixed up with it; choose another.")
        for path in [source] if source.is_file() else find_images(source, suffixes):
            if inside and inside in path.resolve().parents:
                continue
            name = Path(path.name) if path == source else path.relative_to(source)
            _, other = found.setdefault(normal(name), (name, path))
            if other.resolve() != path.resolve():
                raise ValueError(f"{other} and {path} are both called {name}; take them one after the other.")
    return dict(found.values())


def result_names(names: Iterable[Path]) -> dict[Path, Path]:
    """What the class maps of images are called: with `.tif` instead of their suffix, or after it to be unambiguous.

    Raises:
        ValueError: two of them would still have one name.
    """
    stems = {name: normal(name.with_suffix("")).casefold() for name in names}
    count = Counter(stems.values())
    results = {
        name: name.with_name((name.stem if count[stem] == 1 else name.name) + ".tif") for name, stem in stems.items()
    }
    owners: dict[str, Path] = {}
    for name, result in results.items():
        other = owners.setdefault(normal(result).casefold(), name)
        if other != name:
            raise ValueError(f"The results of {other} and {name} would both be called {result}; rename one of them.")
    return results


def pair_by_name(
    images: Sequence[Path], others: Sequence[Path], what: str = "labels", suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Images with the files that belong to them, in the order of the images, and the images that have none.

    A single image goes with a single file, whatever the two are called.

    Args:
        images: files and folders.
        others: files and folders of labels or masks, which have the images' names but for the suffix.
        what: the others are called in messages.
        suffixes: of the others that are looked for in folders.

    Raises:
        ValueError: one of the others has no image, or two files differ in the suffix only.
        FileNotFoundError: as for `named_paths`.
    """
    if len(images) == len(others) == 1 and images[0].is_file() and others[0].is_file():
        return [(images[0], others[0])], []
    image_paths, other_paths = by_stem(images, what), by_stem(others, what, suffixes)
    lonely = [str(path) for stem, path in other_paths.items() if stem not in image_paths]
    if lonely:
        raise ValueError(f"{listed(lonely)}: there is no image of the same name. Add it, or remove the {what}.")
    pairs = [(path, other_paths[stem]) for stem, path in image_paths.items() if stem in other_paths]
    return pairs, [path for stem, path in image_paths.items() if stem not in other_paths]


def by_stem(given: Sequence[Path], what: str, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Files by their names without suffix in normal form; raises what `pair_by_name` raises."""
    paths: dict[str, Path] = {}
    for name, path in named_paths(given, suffixes=suffixes).items():
        other = paths.setdefault(normal(name.with_suffix("")), path)
        if other != path:
            raise ValueError(f"{other} and {path} differ in the suffix only; images and {what} go together by name.")
    return paths


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names for a message: some of them, and how many there are if that is not all."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
