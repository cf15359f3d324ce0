# SPDX-License-Identifier: Apache-2.0
"""Model, ONNX model and page are written together, name each other, and arrive on the Hub as they were written."""

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import ModelCard, RepoCard

from evaluation.report.release import main
from tests.documentation import PAGE, make_page
from tests.evaluation.report.example_records import contents

pytest.importorskip("onnxscript", reason="exporting to ONNX needs the extra 'onnx'")

FOLDERS = {"models/tiny": "someone/tiny", "models/tiny-ONNX": "someone/tiny-ONNX", "spaces/tiny": "spaces/someone/tiny"}


@pytest.fixture
def hub(hub, monkeypatch):
    """The stand-in, as the only Hub that there is."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
    return hub


def arguments(model, page, output, *more) -> list[str]:
    images = ["--images", str(model / "examples")]
    words = ["--model", str(model), "--page", str(page), "--namespace", "someone", "--output", str(output)]
    return [*words, *images, *more]


def status(words) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code


@pytest.fixture(scope="session")
def written(tmp_path_factory, exported):
    """A release of the tiny model that was not pushed, and the page it was made with."""
    folder = tmp_path_factory.mktemp("release")
    page = folder / "web"
    make_page(page)
    assert status(arguments(exported, page, folder / "release")) == 0
    return folder / "release", page


@pytest.fixture
def release(written, tmp_path):
    return Path(shutil.copytree(written[0], tmp_path / "release")), written[1]


def test_three_folders_are_written_and_name_each_other(release, exported):
    output, _ = release
    before = contents(exported)
    names = {path.relative_to(output).as_posix() for path in output.glob("*/*")}
    assert names == set(FOLDERS)
    model = contents(output / "models" / "tiny")
    changed = {name for name, content in model.items() if before.get(name) != content}
    assert model.keys() == before.keys()
    assert changed <= {"README.md", "notebook.ipynb", *(name for name in model if name.startswith("outputs/"))}
    assert 'from_pretrained("someone/tiny"' in model["README.md"].decode()
    assert b'snapshot_download(\\"someone/tiny\\")' in model["notebook.ipynb"]
    onnx = ModelCard.load(output / "models" / "tiny-ONNX" / "README.md")
    assert onnx.data.base_model == "someone/tiny"
    assert 'from_pretrained("someone/tiny-ONNX")' in onnx.text
    space = contents(output / "spaces" / "tiny")
    assert space.keys() == {"README.md", "dist/index.html", "dist/config.json", "dist/assets/runtime.wasm"}
    assert json.loads(space["dist/config.json"]) == {"model": "someone/tiny-ONNX"}
    card = RepoCard.load(output / "spaces" / "tiny" / "README.md", ignore_metadata_errors=True)
    metadata = card.data.to_dict()
    assert metadata["models"] == ["someone/tiny-ONNX"]
    assert metadata["custom_headers"] == {"cross-origin-opener-policy": "same-origin"}
    # What is uploaded is built: the Hub could not build it again without its source.
    assert "app_build_command" not in metadata
    assert card.text.strip() == "# The page"


def test_a_written_release_is_pushed_as_it_is(release, exported, hub, capsys):
    output, page = release
    before = contents(output)
    assert status(arguments(exported, page, output)) == 2
    assert "not empty" in capsys.readouterr().err
    assert hub.requests == []
    assert status(arguments(exported, page, output, "--push")) == 0
    assert contents(output) == before
    assert set(hub.repositories) == set(FOLDERS.values())
    for folder, repository in FOLDERS.items():
        arrived = hub.repositories[repository]
        assert arrived == contents(output / folder) | {".gitattributes": arrived[".gitattributes"]}
    assert capsys.readouterr().out.count("uploaded and verified") == 3
    assert hub.commits == 3


def test_a_refusal_is_told_and_the_same_command_goes_on(release, exported, hub, capsys):
    output, page = release
    hub.refusals["/api/spaces/someone/tiny/commit/"] = [500]
    assert status(arguments(exported, page, output, "--push")) == 2
    assert "someone/tiny was not published: Server error '500" in capsys.readouterr().err
    assert set(hub.repositories["spaces/someone/tiny"]) == {".gitattributes"}
    assert status(arguments(exported, page, output, "--push")) == 0
    assert hub.repositories["spaces/someone/tiny"]["dist/index.html"] == b"<p>a page</p>"


def test_one_command_writes_and_pushes(tmp_path, exported, hub):
    page = tmp_path / "web"
    make_page(page)
    assert status(arguments(exported, page, tmp_path / "release", "--push")) == 0
    assert set(hub.repositories) == set(FOLDERS.values())


def test_a_release_of_other_weights_or_another_name_is_not_pushed(release, exported, hub, tmp_path, capsys):
    output, page = release
    facts = json.loads((output / "release.json").read_text())
    (output / "release.json").write_text(json.dumps(facts | {"weights_sha256": "0" * 64}))
    assert status(arguments(exported, page, output, "--push")) == 2
    assert "Give another --output" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert status(arguments(exported, page, tmp_path / "mine", "--push")) == 2
    assert "is no release" in capsys.readouterr().err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dist/index.html", None, "npm ci && npm run build"),
        ("README.md", PAGE.replace("static", "gradio"), "say sdk: gradio"),
        ("README.md", PAGE.replace("dist/index.html", "index.html"), "app_file: index.html"),
    ],
)
def test_a_page_that_is_not_built_or_no_static_space_is_refused(tmp_path, exported, capsys, name, content, message):
    page = tmp_path / "web"
    make_page(page)
    if content is None:
        (page / name).unlink()
    else:
        (page / name).write_text(content)
    assert status(arguments(exported, page, tmp_path / "release")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "release").exists()
