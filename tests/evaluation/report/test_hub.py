# SPDX-License-Identifier: Apache-2.0
"""What is pushed arrives whole and in one commit; what is refused loses nothing and can be pushed again."""

import socket

import pytest

from evaluation.report.hub import push_folder
from tests.evaluation.report.example_records import contents

REPOSITORY = "someone/alibi"


@pytest.fixture
def folder(tmp_path):
    """A folder with files of both kinds, in subfolders too, and with some that stay at home."""
    folder = tmp_path / "alibi"
    for name, content in {
        "README.md": b"---\nlicense: mit\n---\n# A card\n",
        "model.safetensors": bytes(range(256)) * 100,
        "results/micrographs.json": b"{}\n",
        "figures/pca.png": b"picture",
        ".cache/state": b"local",
        "__pycache__/modeling.pyc": b"local",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def expected(folder) -> dict[str, bytes]:
    """What a repository is to hold of a folder."""
    shown = {name: content for name, content in contents(folder).items() if not name.startswith((".", "__"))}
    return {".gitattributes": b"*.safetensors filter=lfs"} | shown


def test_folder_arrives_in_one_commit(hub, folder):
    assert push_folder(folder, REPOSITORY, hub.endpoint) == f"{hub.endpoint}/{REPOSITORY}/commit/1"
    assert hub.repositories == {REPOSITORY: expected(folder)}
    assert len(hub.repositories[REPOSITORY]) == 5
    assert hub.commits == 1


def test_pushing_again_changes_what_changed_and_removes_what_is_stale(hub, folder):
    push_folder(folder, REPOSITORY, hub.endpoint)
    hub.repositories[REPOSITORY]["notes.txt"] = b"written on the Hub"
    (folder / "results" / "micrographs.json").rename(folder / "results" / "noise.json")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Another card\n")
    sent = len([request for request in hub.requests if request.startswith("PUT")])
    push_folder(folder, REPOSITORY, hub.endpoint)
    assert hub.repositories == {REPOSITORY: expected(folder) | {"notes.txt": b"written on the Hub"}}
    assert len([request for request in hub.requests if request.startswith("PUT")]) == sent


@pytest.mark.parametrize(
    ("place", "status"),
    [("/api/repos/create", 401), ("/preupload/", 403), ("/objects/batch", 403), ("/large/", 403), ("/commit/", 500)],
)
def test_refusal_anywhere_on_the_way_is_told_and_the_next_try_succeeds(hub, folder, place, status):
    before = contents(folder)
    hub.refusals[place] = [status]
    with pytest.raises(
        OSError, match=f"{REPOSITORY} was not published: .*{status}.*run the same command again"
    ) as caught:
        push_folder(folder, REPOSITORY, hub.endpoint)
    assert "hf_of_the_test" not in str(caught.value)
    assert contents(folder) == before
    # Nobody sees half of it.
    assert hub.repositories.get(REPOSITORY, {}).keys() <= {".gitattributes"}
    push_folder(folder, REPOSITORY, hub.endpoint)
    assert hub.repositories == {REPOSITORY: expected(folder)}
    assert hub.commits == 1


@pytest.mark.parametrize("name", ["README.md", "model.safetensors"])
def test_other_bytes_than_sent_are_noticed(hub, folder, name):
    hub.damage = name
    with pytest.raises(OSError, match=rf"After the upload {REPOSITORY} differs from .*alibi in {name}\."):
        push_folder(folder, REPOSITORY, hub.endpoint)


def test_unreachable_hub_is_told(hub, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(OSError, match=r"was not published: .*[Cc]onnect"):
        push_folder(folder, REPOSITORY, endpoint)


def test_name_that_the_hub_cannot_have_is_refused(hub, folder):
    with pytest.raises(ValueError, match="a/b/c"):
        push_folder(folder, "a/b/c", hub.endpoint)
    assert not hub.requests
