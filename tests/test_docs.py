# SPDX-License-Identifier: Apache-2.0
"""Every example of the README and of docs/ runs as it is written, in order, on tiny models and images."""

import pytest

from tests.documentation import REPOSITORY, blocks, commands, copy_sandbox, make_sandbox, run_command
from training.create_student import save_student

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
README_LINES = 180


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents") / "sandbox"
    folder.mkdir()
    make_sandbox(folder)
    return folder


@pytest.fixture
def sandbox(stand_ins, tmp_path, monkeypatch):
    """A folder with what the documents find beside them, as the working directory."""
    folder = copy_sandbox(stand_ins, tmp_path / "clone")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_example_runs(document, sandbox):
    examples = blocks(document, "bash", "python")
    if document.name == "evaluation.md":  # it begins where training.md ends
        save_student(str(sandbox / "teacher"), sandbox / "student")
    if document.name == "publishing.md":
        save_student(str(sandbox / "teacher"), sandbox / "runs" / "first" / "best")
    names: dict = {"__name__": "__main__"}
    for language, text in examples:
        if language == "python":
            exec(compile(text, str(document), "exec"), names)
        else:
            for words in commands(text):
                run_command(words)


def test_every_document_is_reached_from_the_readme_and_says_its_language():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for document in DOCUMENTS[1:]:
        assert f"docs/{document.name}" in readme, document.name
    assert len(readme.splitlines()) <= README_LINES
    # A block without a language would be run by nobody and noticed by nobody; the file tree is the only one.
    unmarked = sum(document.read_text(encoding="utf-8").count("\n\n```\n") for document in DOCUMENTS)
    assert unmarked == 1


def test_a_wrong_example_would_be_noticed(sandbox):
    with pytest.raises(AssertionError, match="ended with 2"):
        run_command(["alibi-dinov2", "info", "nowhere"])
    with pytest.raises(AssertionError):
        run_command(["make", "coffee"])
    with pytest.raises(AssertionError):
        run_command(["pip", "install", "-e", ".[coffee]"])
