# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from PIL import Image

from training.loss_curves import best_table, loss_figure, main, read_run, validation_curves

ENTRIES = [
    {"step": 0, "validation_loss": 0.3, "validation_loss_224": 0.2, "validation_loss_518": 0.4},
    {"step": 10, "size": 224, "loss": 0.25},
    {
        "step": 20,
        "size": 224,
        "loss": 0.2,
        "validation_loss": 0.1,
        "validation_loss_224": 0.15,
        "validation_loss_518": 0.05,
    },
    {
        "step": 30,
        "size": 518,
        "loss": 0.3,
        "validation_loss": 0.2,
        "validation_loss_224": 0.1,
        "validation_loss_518": 0.3,
    },
]


def write(path, entries=ENTRIES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def test_curves_are_what_the_run_wrote(tmp_path):
    entries = read_run(write(tmp_path / "run" / "metrics.jsonl").parent)
    assert validation_curves(entries)["518"] == ([0, 20, 30], [0.4, 0.05, 0.3])
    figure = loss_figure({"ALiBi": entries, "NoPE": ENTRIES[:3]})
    training, validation = figure.axes
    assert training.lines[0].get_xydata().tolist() == [[10, 0.25], [20, 0.2], [30, 0.3]]
    assert [line.get_label() for line in validation.lines] == [
        f"{name}, {size} px" for name in ("ALiBi", "NoPE") for size in (224, 518)
    ]
    assert validation.lines[1].get_ydata().tolist() == [0.4, 0.05, 0.3]
    assert [(text.get_text(), text.xy[0]) for text in training.texts] == [("224 px", 0), ("518 px", 20)]


def test_the_best_step_is_that_of_the_mean_and_not_the_start():
    first, best = best_table({"run": ENTRIES}).splitlines()
    assert "step      0" in first
    assert "step     20" in best
    assert "mean: 0.1000" in best
    assert "518: 0.0500" in best
    worse = [ENTRIES[0] | {"validation_loss": 0.01}, *ENTRIES[1:]]
    assert "step     20" in best_table({"run": worse}).splitlines()[1]
    assert "was not validated" in best_table({"run": [{"step": 10, "size": 224, "loss": 0.25}]})


def test_a_run_without_sizes_of_validation_has_one_curve():
    entries = [{"step": 0, "validation_loss": 0.3}, {"step": 10, "size": 112, "loss": 0.2, "validation_loss": 0.2}]
    _, validation = loss_figure({"run": entries}).axes
    assert [line.get_label() for line in validation.lines] == ["run"]


def test_the_command_draws_and_tells(tmp_path, capsys):
    runs = [str(write(tmp_path / name / "metrics.jsonl").parent) for name in ("one", "two")]
    with pytest.raises(SystemExit) as stopped:
        main(["--runs", *runs, "--output", str(tmp_path / "losses.png")])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.count("step     20") == 2
    assert Image.open(tmp_path / "losses.png").width > 800


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "none"], "none has no metrics"),
        (["--runs", "a", "b", "--names", "a"], "The names of 2 runs are ['a']"),
        (["--runs", "a/run", "b/run"], "give each run a name of its own"),
    ],
)
def test_wrong_runs_are_refused(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--output", str(tmp_path / "losses.png")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
