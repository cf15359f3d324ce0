# SPDX-License-Identifier: Apache-2.0
"""A model's folder gets the card of its own records, or nothing changes; it leaves the machine on demand only."""

import os
import subprocess
import sys

import huggingface_hub.constants
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from alibi_dinov2.io.files import write_json
from evaluation.report.publish import main, publish
from tests.evaluation.report.example_records import contents, example_record, model_folder, without, write_records
from tests.evaluation.report.hub_stand_in import running_hub

# Two pushes in one process: importing takes longer than all the rest.
TWICE = """
import sys
from evaluation.report.publish import main
for _ in range(2):
    try:
        main()
    except SystemExit as stop:
        print("stopped with", stop.code, flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    return model_folder(tmp_path / "alibi")


@pytest.fixture
def pictures(tmp_path):
    """A folder with two pictures, captions and a licence."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("pca.png", "kmeans.png"):
        Image.new("RGB", (4, 4)).save(folder / name)
    write_json(folder / "captions.json", {"pca.png": "Three components.", "kmeans.png": "Six clusters."})
    (folder / "LICENSE.md").write_text("MIT, from org/pictures")
    return folder


def test_records_comparisons_and_pictures_are_gathered(tmp_path, folder, pictures):
    records = write_records(tmp_path / "own", micrographs=example_record(), noise=example_record(data="uniform noise"))
    teacher = write_records(tmp_path / "teacher", micrographs=example_record(model="org/teacher", weights="0" * 64))
    nope = write_records(tmp_path / "nope", micrographs=example_record(model="nope", weights="1" * 64))
    publish(folder, [records], [teacher, nope], pictures, pictures)
    names = {name for name in contents(folder) if "/" in name}
    assert names == {
        *("results/micrographs.json", "results/noise.json"),
        *("compared/org_teacher-micrographs.json", "compared/nope-micrographs.json"),
        *("figures/pca.png", "figures/kmeans.png", "figures/captions.json", "figures/LICENSE.md"),
        *("examples/pca.png", "examples/kmeans.png", "examples/LICENSE.md"),
    }
    card = ModelCard.load(folder / "README.md")
    assert "| alibi | org/teacher | nope  |" in card.text
    assert "![Six clusters.](figures/kmeans.png)" in card.text
    assert {result.dataset_name for result in card.data.eval_results} == {"micrographs", "uniform noise"}


def test_card_is_made_again_from_the_folder_alone(tmp_path, folder, pictures):
    records = write_records(tmp_path / "own", micrographs=example_record())
    compared = write_records(tmp_path / "others", micrographs=example_record(model="teacher", weights="0" * 64))
    publish(folder, [records], [compared], pictures, pictures)
    before = contents(folder)
    (folder / "README.md").unlink()
    publish(folder)
    assert contents(folder) == before
    publish(folder, [folder / "results"], [folder / "compared"], folder / "figures", folder / "examples")
    assert contents(folder) == before


def test_new_record_joins_the_old_or_replaces_that_of_its_name(tmp_path, folder):
    publish(folder, [write_records(tmp_path / "first", micrographs=example_record())])
    second = write_records(
        tmp_path / "second",
        micrographs=example_record(r2_all_patches=-0.75, r2_held_out=-0.5),
        noise=example_record(data="uniform noise"),
    )
    publish(folder, [second])
    card = ModelCard.load(folder / "README.md")
    assert [result.metric_value for result in card.data.eval_results] == [-0.75, -0.5, -0.25, -0.5]


def wrong_records():
    """Kinds of wrong input: the record, and what the message says of its file."""
    good = example_record()
    removal = example_record(data="noise")
    removal["model"]["removal"] = {"name": "rasa"}
    return {
        "other weights": (example_record(model="teacher", weights="0" * 64), "was measured on other weights .teacher"),
        "no seed": (without(good, "seed"), "is no complete result record: it lacks seed"),
        "unknown task": (example_record("telepathy", x=1.0), "cannot be shown: A record is of the task 'telepathy'"),
        "other name": (example_record(model="blanked", data="noise"), "is of another model .*: best and blanked"),
        "removal": (removal, "is of another model of the same weights: best and best with rasa"),
    }


@pytest.mark.parametrize("kind", wrong_records())
def test_wrong_record_is_refused_and_nothing_changes(tmp_path, folder, kind):
    publish(folder, [write_records(tmp_path / "own", good=example_record())])
    before = contents(folder)
    record, message = wrong_records()[kind]
    wrong = write_records(tmp_path / "wrong", wrong=record)
    with pytest.raises(ValueError, match=rf"wrong\.json {message}"):
        publish(folder, [wrong])
    assert contents(folder) == before


def test_other_weights_make_the_results_in_the_folder_foreign(tmp_path, folder):
    publish(folder, [write_records(tmp_path / "own", micrographs=example_record())])
    (folder / "model.safetensors").write_bytes(b"trained on")
    with pytest.raises(ValueError, match=r"results/micrographs\.json was measured on other weights"):
        publish(folder)


def test_wrapper_of_the_same_weights_may_be_compared_with(tmp_path, folder):
    own = write_records(tmp_path / "own", a=example_record())
    wrapped = write_records(
        tmp_path / "wrapped", a=example_record(model="blanked", r2_all_patches=0.78, r2_held_out=0.7)
    )
    publish(folder, [own], [wrapped])
    card = ModelCard.load(folder / "README.md")
    assert "| alibi | blanked |" in card.text
    assert [result.metric_value for result in card.data.eval_results] == [-0.25, -0.5]


def test_records_of_one_file_name_are_not_mixed_up(tmp_path, folder):
    first, second = (write_records(tmp_path / name, a=example_record()) for name in ("first", "second"))
    with pytest.raises(ValueError, match=r"first/a\.json and .*second/a\.json would both be copied as a\.json"):
        publish(folder, [first, second])


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("LICENSE.md", "no LICENSE file"),
        ("captions.json", r"no captions\.json"),
        ("pca.png", r"names pca\.png, which is"),
    ],
)
def test_pictures_need_licence_and_captions(folder, pictures, missing, message):
    (pictures / missing).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        publish(folder, figures=pictures)
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "provenance.json"])
def test_folder_of_a_model_is_needed(folder, missing):
    (folder / missing).unlink()
    weights = missing == "model.safetensors"
    message = "has no weights" if weights else f"lacks {missing}; make it with `python -m training.export`"
    with pytest.raises(FileNotFoundError, match=f"alibi {message}"):
        publish(folder)


def test_provenance_must_be_complete(folder):
    write_json(folder / "provenance.json", {"summary": "A model."})
    with pytest.raises(ValueError, match=r"provenance\.json lacks weights, license, base_model"):
        publish(folder)


def test_nothing_leaves_the_machine_without_push(tmp_path, folder, monkeypatch, capsys):
    own = write_records(tmp_path / "own", micrographs=example_record())
    foreign = write_records(tmp_path / "foreign", a=example_record(weights="0" * 64))
    with running_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(sys, "argv", ["publish", str(folder), "--records", str(own)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        assert (folder / "README.md").exists()
        # Nor does anything with it, if the card cannot be made.
        monkeypatch.setattr(sys, "argv", ["publish", str(folder), "--records", str(foreign), "--push", "someone/alibi"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert "was measured on other weights" in capsys.readouterr().err
        assert hub.requests == []


def test_push_goes_on_after_a_refusal(tmp_path, folder):
    publish(folder, [write_records(tmp_path / "own", micrographs=example_record())])
    local = contents(folder)
    environment = os.environ | {"HF_TOKEN": "hf_of_the_test", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    with running_hub() as hub:
        hub.refusals["/commit/"] = [500]
        command = [sys.executable, "-c", TWICE, str(folder), "--push", "someone/alibi"]
        environment["HF_ENDPOINT"] = hub.endpoint
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "someone/alibi was not published: Server error '500" in result.stderr
    assert "Traceback" not in result.stderr
    first, second = result.stdout.split("stopped with 2")
    assert "uploaded" not in first
    assert "/commit/1: uploaded and verified" in second
    # The card names the repository now; all else is as it was.
    assert {name for name, content in contents(folder).items() if local[name] != content} == {"README.md"}
    arrived = hub.repositories["someone/alibi"]
    assert arrived == contents(folder) | {".gitattributes": arrived[".gitattributes"]}
    assert 'from_pretrained("someone/alibi")' in arrived["README.md"].decode()
