# SPDX-License-Identifier: Apache-2.0
"""A folder to the Hub: in one commit, and what arrived compared with what was sent."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import filter_repo_objects
from huggingface_hub.utils.sha import git_hash

from alibi_dinov2.io.files import sha256_of

# What this project alone writes in a repository, so that files which are there no longer may go.
OWN_FOLDERS = ("compared/*", "dist/*", "examples/*", "figures/*", "onnx/*", "outputs/*", "results/*")
STAY_AT_HOME = (".*", "*/.*", "*__pycache__/*")  # hidden files and folders, and byte code


def push_folder(folder: Path, repo_id: str, endpoint: str | None = None, repo_type: str = "model") -> str:
    """Make a repository if there is none, and bring a folder's files into it.

    All files change in one commit: nobody sees weights with the card of others. Files in `OWN_FOLDERS` that the folder
    no longer has are removed, other files of the repository stay.

    Args:
        folder: with the model or page; hidden files and folders stay at home.
        repo_id: such as `"namespace/name"`.
        endpoint: address of the Hub; that of `HF_ENDPOINT`, or the public Hub, if not given.
        repo_type: `"model"`, or `"space"` for a static page.

    Returns:
        The commit's address.

    Raises:
        OSError: the Hub refused, could not be reached, or has other bytes than the folder afterwards. The same call may
            be made again.
        ValueError: the Hub takes the name or the card's metadata for wrong.
    """
    api = HfApi(endpoint=endpoint)
    try:
        space_sdk = "static" if repo_type == "space" else None
        api.create_repo(repo_id, repo_type=repo_type, space_sdk=space_sdk, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type=repo_type,
            folder_path=folder,
            ignore_patterns=list(STAY_AT_HOME),
            delete_patterns=list(OWN_FOLDERS),
            commit_message=f"Publish {folder.resolve().name}",
        )
        arrived = api.list_repo_tree(repo_id, repo_type=repo_type, recursive=True, revision=commit.oid)
        entries = {entry.path: entry for entry in arrived if isinstance(entry, RepoFile)}
    # A refused upload of a large file comes as a RuntimeError, whose cause is the refusal.
    except (HTTPError, RuntimeError) as error:
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        raise OSError(
            f"{repo_id} was not published: {reason}. Nothing local is lost. Check `hf auth whoami` and your rights "
            "to this repository, then run the same command again."
        ) from error
    differing = [name for name in sent(folder) if name not in entries or not is_same(folder / name, entries[name])]
    if differing:
        raise OSError(f"After the upload {repo_id} differs from {folder} in {', '.join(differing)}. Run it again.")
    return commit.commit_url


def sent(folder: Path) -> list[str]:
    """The files of a folder and its subfolders that are uploaded, by their names in a repository."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return list(filter_repo_objects(names, ignore_patterns=list(STAY_AT_HOME)))


def is_same(path: Path, entry: RepoFile) -> bool:
    """Whether a file has the bytes of a repository's, by the checksum that the Hub gives: SHA-256, or git's own."""
    if entry.lfs:
        return sha256_of(path) == entry.lfs.sha256
    return git_hash(path.read_bytes()) == entry.blob_id
