# SPDX-License-Identifier: Apache-2.0
"""The benchmark as a picture, a panel for each data set, and as tables."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from alibi_dinov2.pictures.plots import line_looks, subplots
from evaluation.segmentation.benchmark.choice import Choice, Scores, balanced, mean_ranks

COLUMNS = 5
AVERAGE = "mean of all"


def panels(scores: Scores, sets: Sequence[str], rounds: Sequence[int], dashed: Sequence[str] = ()) -> Figure:
    """mIoU over rounds, a panel for each data set and one for their mean: means over users and ways of drawing.

    Args:
        scores: see `choice`.
        sets: in the order of the panels.
        rounds: of the scores.
        dashed: contenders whose lines are dashed.
    """
    count = len(sets) + 1
    columns = min(COLUMNS, count)
    figure, axes = subplots(-(-count // columns), columns, width=2.3 * columns, height=2.1 * -(-count // columns))
    looks = line_looks(scores)
    flat = np.asarray(axes).ravel()
    for axis, name in zip(flat, [*sets, AVERAGE], strict=False):
        for contender, of_sets in scores.items():
            found = balanced(of_sets, sets if name == AVERAGE else [name])
            colour, marker = looks[contender]
            style = "--" if contender in dashed else "-"
            axis.plot(range(len(rounds)), found.mean(axis=0), style, color=colour, marker=marker, markersize=3.5)
        axis.set_title(name, fontsize=9)
        axis.set_xticks(range(len(rounds)), [str(number) for number in rounds])
        axis.grid(alpha=0.3)
    for axis in flat[count:]:
        axis.axis("off")
    figure.supylabel("mIoU, test images", fontsize=9)
    figure.supxlabel("rounds of one stroke per class on each of two images", fontsize=9)
    figure.legend(
        list(flat[0].lines),
        list(scores),
        loc="outside upper center",
        ncols=min(len(scores), 6),
        fontsize=8,
    )
    return figure


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first of which are headings, as a Markdown table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def score_table(scores: Scores, sets: Sequence[str], rounds: Sequence[int]) -> str:
    """A row for each contender: its mean rank, its mIoU on all data sets, and on each, after every round."""
    ranks = mean_ranks(scores, sets)
    rows = [["contender", "rank", AVERAGE, "±", *sets]]
    for name, of_sets in scores.items():
        everything = balanced(of_sets, sets)
        spread = f"{everything.mean(axis=1).std(ddof=1):.3f}" if len(everything) > 1 else "–"
        cells = [
            " / ".join(f"{value:.3f}" for value in found.mean(axis=0))
            for found in (everything, *(balanced(of_sets, [one]) for one in sets))
        ]
        rows.append([name, f"{ranks[name]:.1f}", cells[0], spread, *cells[1:]])
    return markdown(rows)


def choice_table(choices: Mapping[str, Choice]) -> str:
    """A row for each data set: what is chosen without it, what that gives on it, and the best there is on it."""
    rows = [["left out", "chosen on the others", "there", "left out", "best on it", "best"]]
    for name, choice in choices.items():
        figures = (choice.on_the_others, choice.left_out, choice.best_left_out)
        others, left_out, best = (f"{figure:.3f}" for figure in figures)
        rows.append([name, choice.chosen, others, left_out, choice.best, best])
    return markdown(rows)
