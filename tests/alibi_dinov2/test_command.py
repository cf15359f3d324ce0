# SPDX-License-Identifier: Apache-2.0
"""How a command ends: with its status, or with a message and not a traceback."""

import argparse

import pytest

from alibi_dinov2.command import run


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser("weigh")
    found.add_argument("--grams", type=int, required=True)
    return found


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_status_is_the_commands(returned, status):
    seen = []
    with pytest.raises(SystemExit) as stop:
        run(parser(), lambda arguments: seen.append(arguments.grams) or returned, ["--grams", "3"])
    assert (stop.value.code, seen) == (status, [3])


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("3 grams are too few"), 2, "weigh: error: 3 grams are too few\n"),
        (FileNotFoundError(2, "No such file", "scale"), 2, "weigh: error: [Errno 2] No such file: 'scale'\n"),
        (ModuleNotFoundError("scale is missing"), 2, "weigh: error: scale is missing\n"),
        (KeyboardInterrupt(), 130, "weigh: interrupted\n"),
    ],
)
def test_wrong_input_ends_with_a_message(capsys, error, status, message):
    def fail(arguments):
        raise error

    with pytest.raises(SystemExit) as stop:
        run(parser(), fail, ["--grams", "3"])
    assert stop.value.code == status
    assert capsys.readouterr() == ("", message)


def test_a_defect_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(parser(), lambda arguments: 1 // 0, ["--grams", "3"])


def test_wrong_arguments_never_reach_the_command(capsys):
    with pytest.raises(SystemExit) as stop:
        run(parser(), lambda arguments: pytest.fail("it ran"), ["--grams", "three"])
    assert stop.value.code == 2
    assert "invalid int value" in capsys.readouterr().err
