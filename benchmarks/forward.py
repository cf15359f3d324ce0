# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one forward pass of a ViT-S/14 with registers, on the CPU, per way to bring in the bias.

    python -m benchmarks.forward --sizes 224 518 1022 --batches 1 8 --dtypes float32 bfloat16 --output forward.json
    python -m benchmarks.forward --huge --output huge.json

* `stock`: `Dinov2WithRegistersModel` with SDPA, which has no bias: what the others are compared with.
* `sdpa`, `alibi_blockwise`, `eager`: ALiBi-DINOv2, each with the same weights.
* `reference`: as research code does it, with the bias expanded per head in every layer (`ReferenceAttention`).

Times are medians of runs that take turns in one process, after one run that is not counted. Memory is the peak of the
resident memory during the first forward pass of a fresh process, less what was resident before it. `--huge` measures
the memory-bounded path where no other fits, and beside SDPA at half that size. An output that is there already is
completed, not begun again.
"""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from alibi_dinov2.io.files import write_json
from benchmarks.cases import CASES, DTYPES, HEAD_DIM, PATCH, Setting, attention_bytes, build_model
from benchmarks.measuring import (
    in_fresh_process,
    machine_facts,
    memory_status,
    read_record,
    time_and_memory,
    time_in_turns,
)
from modeling_alibi_dinov2.attention_alibi_dinov2 import BLOCKWISE

HUGE_SIZE = 2044  # 146×146 patches
FREE_SHARE = 0.8  # of the free memory; a case that needs more is left out rather than killed


def measure_first_forward(case: str, setting: Setting, threads: int) -> dict[str, float]:
    """Time and memory of the first forward pass; to be called in a process of its own."""
    torch.set_num_threads(threads)
    model, pixels = build_model(case, setting), setting.pixels()
    with torch.inference_mode():
        model(pixels[:1, :, :PATCH, :PATCH])  # the kernels' own buffers are not the attention's
        return time_and_memory(lambda: model(pixels))


def compare(setting: Setting, cases: tuple[str, ...], repeats: int, bar: tqdm) -> list[dict[str, Any]]:
    """One row per case: what was measured, or the attention's memory alone where that exceeds the free memory.

    A single case is not timed in turns: its time is that of its first forward pass.
    """

    def advance(case: str) -> None:
        bar.set_description(f"{setting.size} px, batch {setting.batch}, {setting.dtype}, {case}")
        bar.update()

    rows = {case: asdict(setting) | {"case": case, "attention_bytes": attention_bytes(case, setting)} for case in cases}
    free = FREE_SHARE * memory_status("MemAvailable")
    fitting = [case for case in cases if rows[case]["attention_bytes"] < free]
    for case in fitting:
        advance(case)
        rows[case] |= in_fresh_process(measure_first_forward, case, setting, torch.get_num_threads())
    if len(fitting) > 1:
        with torch.inference_mode():
            pixels = setting.pixels()
            runs = {case: partial(build_model(case, setting), pixels) for case in fitting}
            timed = time_in_turns(runs, repeats, advance)
        base = next(case for case in fitting if case != "stock")
        for case, (seconds, output) in timed.items():
            rows[case] |= {"seconds": seconds, "ratio": seconds / timed[fitting[0]][0], "ratio_to": fitting[0]}
            if case not in ("stock", base):
                difference = output.last_hidden_state - timed[base][1].last_hidden_state
                rows[case] |= {"difference": float(difference.abs().max()), "difference_to": base}
    return list(rows.values())


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown; a dash stands for what does not apply or did not fit into memory."""

    def cell(row: dict[str, Any], form: str, name: str, factor: float = 1.0) -> str:
        return form.format(row[name] * factor, row.get(f"{name}_to")) if name in row else "–"

    lines = [
        "| pixels | batch | dtype | case | ms per image | ratio | memory MB | process MB | attention MB | difference |",
        "|---:|---:|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = (
            *(str(row[name]) for name in ("size", "batch", "dtype", "case")),
            cell(row, "{:.1f}", "seconds", 1e3 / row["batch"]),
            cell(row, "{:.2f} × {}", "ratio"),
            *(cell(row, "{:.0f}", name, 1e-6) for name in ("memory_bytes", "process_bytes", "attention_bytes")),
            cell(row, "{:.0e} to {}", "difference"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def comparisons(options: Namespace) -> list[tuple[Setting, tuple[str, ...]]]:
    """What to compare with what."""
    model = {"layers": options.layers, "width": options.width}
    if not options.huge:
        return [(Setting(*each, **model), CASES) for each in product(options.sizes, options.batches, options.dtypes)]
    half = max(options.huge // 2 // PATCH, 1) * PATCH
    return [(Setting(options.huge, **model), (BLOCKWISE,)), (Setting(half, **model), ("sdpa", BLOCKWISE))]


def number_of_runs(cases: tuple[str, ...], repeats: int) -> int:
    """Forward passes of a comparison: one per case for the memory, and the turns if there are several."""
    return len(cases) * (1 if len(cases) == 1 else repeats + 2)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 518, 1022], help="sides in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtypes", choices=DTYPES, nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--huge", type=int, nargs="?", const=HUGE_SIZE, help=f"side in pixels, {HUGE_SIZE} if not given"
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384, help=f"a multiple of {HEAD_DIM}")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    sides = [options.huge] if options.huge else options.sizes
    if any(side < PATCH or side % PATCH for side in sides) or options.width % HEAD_DIM or options.repeats < 1:
        parser.error(
            f"sizes {sides} must be multiples of {PATCH}, width {options.width} of {HEAD_DIM}, repeats "
            f"{options.repeats} at least 1"
        )
    try:
        record = read_record(options.output, {"machine": machine_facts(), "repeats": options.repeats}, "comparisons")
    except ValueError as error:
        parser.error(str(error))
    done = record["comparisons"]
    jobs = {f"{setting}: {', '.join(cases)}": (setting, cases) for setting, cases in comparisons(options)}
    jobs = {key: job for key, job in jobs.items() if key not in done}
    with tqdm(total=sum(number_of_runs(cases, options.repeats) for _, cases in jobs.values()), unit="run") as bar:
        for key, (setting, cases) in jobs.items():
            done[key] = compare(setting, cases, options.repeats, bar)
            if options.output:
                write_json(options.output, record)
    print(table([row for rows in done.values() for row in rows]))


if __name__ == "__main__":
    main()
