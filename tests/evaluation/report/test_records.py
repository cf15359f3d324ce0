# SPDX-License-Identifier: Apache-2.0
"""A record is complete or refused, and says how it was made."""

import argparse
import json
from pathlib import Path

import pytest

from evaluation.command import command_line, record_parser
from evaluation.report.records import data_name, read_record, read_records
from tests.evaluation.report.example_records import example_record, without, write_records


def test_data_have_the_name_of_the_folder_that_says_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [data_name(folder) for folder in ("data/steel", "data/steel/images", "data/steel/images/", ".")]
    assert names == ["steel", "steel", "steel", tmp_path.name]


def test_records_come_from_files_and_folders_in_the_order_of_their_names(tmp_path):
    folder = write_records(tmp_path / "folder", b=example_record(model="b"), a=example_record(model="a"))
    single = write_records(tmp_path, c=example_record(model="c")) / "c.json"
    records = read_records([single, folder])
    assert [path.name for path in records] == ["c.json", "a.json", "b.json"]
    assert [record["model"]["name"] for record in records.values()] == ["c", "a", "b"]


@pytest.mark.parametrize(
    "lacking", [("seed", "versions"), ("command",), ("dataset.fingerprint",), ("model.weights_sha256",)]
)
def test_incomplete_record_is_named_with_what_it_lacks(tmp_path, lacking):
    write_records(tmp_path, broken=without(example_record(), *lacking))
    with pytest.raises(
        ValueError, match=rf"broken\.json is no complete result record: it lacks {', '.join(lacking)}\."
    ):
        read_record(tmp_path / "broken.json")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "null", "true", '"0.5"'])
def test_figures_that_are_no_finite_numbers_are_refused(tmp_path, value):
    text = json.dumps(example_record(r2_all_patches=0.5, r2_held_out=0.25)).replace("0.25", value)
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(ValueError, match=r"broken\.json .* it has r2_held_out, which must be finite numbers"):
        read_record(tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "it lacks task, metrics"),
        (json.dumps(example_record() | {"metrics": {}}), "it has no metrics"),
        (json.dumps(example_record() | {"dataset": "micrographs"}), r"it lacks dataset\."),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, text, message):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=rf"other\.json .*{message}"):
        read_record(tmp_path / "other.json")


def test_folder_without_records_and_missing_file_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="contains no result record"):
        read_records([tmp_path])
    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        read_records([tmp_path / "missing.json"])


def parser_of_a_command() -> argparse.ArgumentParser:
    parser = record_parser(None)
    parser.add_argument("--zero-channels", type=int, nargs="+", default=[])
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--bar", action=argparse.BooleanOptionalAction, default=True)
    return parser


def test_command_line_gives_the_options_that_matter_and_no_place_on_the_machine(tmp_path):
    given = ["--model", "demo/teacher", "--output", str(tmp_path / "r.json"), "--size", "518", "--seed", "3"]
    given += ["--zero-channels", "1", "5", "--plain", "--no-bar", "--name", "../../else/where"]
    parser = parser_of_a_command()
    words = command_line(parser_of_a_command, parser, parser.parse_args(given))
    assert words[:3] == ["python", "-m", "tests.evaluation.report.test_records"]
    options = ["--model", "demo/teacher", "--name", "where", "--seed", "3", "--output", "r.json"]
    assert words[3:] == [*options, "--zero-channels", "1", "5", "--plain", "--no-bar"]
    again = parser.parse_args(words[3:])
    assert (again.zero_channels, again.plain, again.bar, again.size, again.output) == (
        [1, 5],
        True,
        False,
        518,
        Path("r.json"),
    )
