# SPDX-License-Identifier: Apache-2.0
"""What a GPU is asked: is all there, how fast is each way to bring in the bias, is flex right; and a distillation.

    python -m benchmarks.gpu check
    python -m benchmarks.gpu throughput --output gpu-throughput.json
    python -m benchmarks.gpu parity --output gpu-parity.json
    python -m benchmarks.gpu distill --config training/recipes/published.json --minutes 50

* `check` says what the machine has and lacks, and ends with status 1 if something is lacking that the others need.
* `throughput` times forward passes of a ViT-S/14 with registers at each size and batch: stock DINOv2 with SDPA as
  PyTorch chooses it (`stock`) and with its FlashAttention kernel (`stock_flash`), neither with a bias, and ours with
  `sdpa`, `alibi_blockwise` and `flex_attention`. Medians of runs that take turns, after one that is not counted; the
  ratio is to `stock`. Memory is the peak of what PyTorch allocated. An output that is there already is completed.
* `parity` compares features and gradients of flex and SDPA, in single precision and in that of the comparison.
* `distill` runs a recipe for so many minutes, or goes on with it, and ends with a checkpoint: the same command again
  does the next piece. It is `training/distill.py` with a clock.

All of it runs on a CPU with `--device cpu`, smaller, so that nothing is tried for the first time on a rented machine;
flex has no backward pass there.
"""

import importlib.util
import sys
import threading
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from alibi_dinov2.features.precision import computes_in_bf16
from alibi_dinov2.io.files import write_json
from benchmarks.cases import DTYPES, HEAD_DIM, PATCH, Setting, build_model
from benchmarks.measuring import machine_facts, read_record, time_in_turns
from modeling_alibi_dinov2.attention_alibi_dinov2 import BLOCKWISE
from training.configuration import parse_configuration
from training.distill import distill
from training.stopping import Stopped, stop_on_signals

FLASH, FLEX = "stock_flash", "flex_attention"
CASES = ("stock", FLASH, "sdpa", BLOCKWISE, FLEX)
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2}  # of the largest feature or gradient; twelve layers round each time


def environment(device: torch.device) -> dict[str, Any]:
    """What the figures depend on: the machine, the device and its memory."""
    facts: dict[str, Any] = {"machine": machine_facts(), "device": device.type}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"name": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
        facts["capability"] = f"{properties.major}.{properties.minor}"
    return facts


def check(options: Namespace) -> int:
    """Print what is there; 1 if something is lacking."""
    device = torch.device(options.device)
    available = device.type != "cuda" or torch.cuda.is_available()
    found: dict[str, tuple[bool, str]] = {"device": (available, f"{device}, torch {torch.__version__}")}
    if available:
        found["bfloat16"] = computes_in_bf16(device)
        found["flex compiles"] = runs(lambda: flex_parity("float32", device, backward=device.type == "cuda"))
        found["FlashAttention kernel"] = runs(lambda: forward(FLASH, Setting(2 * PATCH, dtype=options.dtype), device))
    for name in ("accelerate", "datasets"):
        found[name] = (importlib.util.find_spec(name) is not None, "for distill")
    for name, (good, reason) in found.items():
        print(f"{'yes' if good else 'NO ':<4}{name}: {reason}")
    return 0 if all(good for good, _ in found.values()) else 1


def runs(action: Callable[[], Any]) -> tuple[bool, str]:
    """Whether something runs, and what it says if it does not."""
    try:
        action()
    except (RuntimeError, ImportError) as error:  # compilers and kernels report with RuntimeError
        return False, " ".join(str(error).split())[:300]
    return True, "runs"


def on_device(case: str, setting: Setting, device: torch.device) -> PreTrainedModel:
    """The model of a case; the two of stock DINOv2 are one model."""
    return build_model("stock" if case == FLASH else case, setting).to(device)


def forward(case: str, setting: Setting, device: torch.device) -> torch.Tensor:
    """One forward pass of a case."""
    model, pixels = on_device(case, setting, device), setting.pixels().to(device)
    with torch.inference_mode():
        return timed_run(case, model, pixels)()


def timed_run(case: str, model: PreTrainedModel, pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A forward pass that has ended when the function returns."""

    def run() -> torch.Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION) if case == FLASH else nullcontext():
            tokens = model(pixels).last_hidden_state
        if tokens.device.type == "cuda":
            torch.cuda.synchronize(tokens.device)
        return tokens

    return run


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int | None:
    """The peak of what PyTorch allocates on a GPU during a run, weights included."""
    if device.type != "cuda":
        run()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device)


def compare(
    setting: Setting, device: torch.device, repeats: int, advance: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """A row for each case that fits into the device's memory; one that does not says so."""
    rows: dict[str, dict[str, Any]] = {case: vars(setting) | {"case": case} for case in CASES}
    pixels, fitting = setting.pixels().to(device), {}
    with torch.inference_mode():
        for case in CASES:
            run = timed_run(case, on_device(case, setting, device), pixels)
            try:
                rows[case]["memory_bytes"] = peak_bytes(run, device)
            except torch.OutOfMemoryError:
                rows[case]["failed"] = "out of memory"
            else:
                fitting[case] = run
            advance(case)
        timed = time_in_turns(fitting, repeats, advance) if fitting else {}
    for case, (seconds, tokens) in timed.items():
        rows[case] |= {"seconds": seconds, "images_per_second": setting.batch / seconds}
        if "stock" in timed:
            rows[case]["ratio"] = seconds / timed["stock"][0]
        if case in (BLOCKWISE, FLEX) and "sdpa" in timed:
            rows[case]["difference_to_sdpa"] = float((tokens - timed["sdpa"][1]).abs().max())
    return list(rows.values())


def throughput(options: Namespace) -> int:
    """Time all settings that the record lacks, one after the other."""
    device = torch.device(options.device)
    record = read_record(options.output, environment(device) | {"repeats": options.repeats}, "comparisons")
    settings = [
        Setting(size, batch, options.dtype, options.layers, options.width)
        for size, batch in product(options.sizes, options.batches)
    ]
    wanted = [setting for setting in settings if str(setting) not in record["comparisons"]]
    with tqdm(total=len(wanted) * len(CASES) * (options.repeats + 2), unit="run") as bar:
        for setting in wanted:

            def advance(case: str, setting: Setting = setting) -> None:
                bar.set_description(f"{setting.size} px, batch {setting.batch}, {case}")
                bar.update()

            record["comparisons"][str(setting)] = compare(setting, device, options.repeats, advance)
            write_json(options.output, record)
    print(table([row for rows in record["comparisons"].values() for row in rows]))
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| pixels | batch | case | images per second | times stock's time | memory MB |",
        "|---:|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        speed = f"{row['images_per_second']:.1f}" if "seconds" in row else row["failed"]
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else "–"
        memory = f"{row['memory_bytes'] / 1e6:.0f}" if row.get("memory_bytes") else "–"
        lines.append(f"| {row['size']} | {row['batch']} | {row['case']} | {speed} | {ratio} | {memory} |")
    return "\n".join(lines)


def flex_parity(
    dtype: str, device: torch.device, backward: bool, setting: Setting | None = None
) -> dict[str, dict[str, float]]:
    """Largest difference of flex from SDPA, over the largest value, of features and of every gradient together.

    With a slope of 4, so that a bias that is wrong, or not there, shows.
    """
    setting = replace(setting or Setting(6 * PATCH, layers=2), dtype=dtype)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for case in ("sdpa", FLEX):
        model = build_model(case, setting, alibi_slope=4.0).to(device)
        with torch.set_grad_enabled(backward):
            tokens = model(setting.pixels().to(device)).last_hidden_state
            found[case] = {"features": tokens.detach().float()}
            if backward:
                weights = torch.linspace(-1, 1, tokens.numel(), device=device).view_as(tokens)
                (tokens.float() * weights).sum().backward()
                gradients = [value.grad.float().flatten() for value in model.parameters() if value.grad is not None]
                found[case]["gradients"] = torch.cat(gradients)
    return {
        name: {
            "largest": float(expected.abs().max()),
            "relative_difference": float((found[FLEX][name] - expected).abs().max() / expected.abs().max()),
        }
        for name, expected in found["sdpa"].items()
    }


def parity(options: Namespace) -> int:
    """Compare flex with SDPA; 1 if they differ by more than rounding."""
    device = torch.device(options.device)
    backward = device.type == "cuda"
    setting = Setting(options.sizes[0], options.batches[0], layers=options.layers, width=options.width)
    dtypes = list(dict.fromkeys(("float32", options.dtype)))
    rows = {dtype: flex_parity(dtype, device, backward, setting) for dtype in dtypes}
    write_json(options.output, environment(device) | {"setting": vars(setting), "parity": rows})
    worst = {dtype: max(entry["relative_difference"] for entry in rows[dtype].values()) for dtype in dtypes}
    for dtype, entries in rows.items():
        for name, entry in entries.items():
            print(f"{dtype} {name}: {entry['relative_difference']:.1e} of the largest, allowed {TOLERANCES[dtype]:.0e}")
    if not backward:
        print("gradients: not compared; flex has no backward pass on a CPU")
    return 0 if all(worst[dtype] <= TOLERANCES[dtype] for dtype in dtypes) else 1


def distill_piece(options: Namespace, more: list[str]) -> int:
    """Run a recipe, or go on with it, until it is done or the time is over."""
    words = ["--config", str(options.config), *more]
    config = parse_configuration(words)
    config = replace(config, resume=(Path(str(config.output)) / "config.json").exists())
    with stop_on_signals() as stop:
        clock = threading.Timer(options.minutes * 60, lambda: setattr(stop, "number", int(SIGTERM)))
        clock.daemon = True
        clock.start()
        try:
            print(f"Student: {distill(config, stop)}")
        except Stopped as stopped:
            print(f"{stopped} The same command again goes on.")
        finally:
            clock.cancel()
    return 0


def make_parser() -> ArgumentParser:
    """The options of this benchmark."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    checking = ways.add_parser("check", help="what the machine has")
    timing = ways.add_parser("throughput", help="images per second of each way")
    comparing = ways.add_parser("parity", help="flex against SDPA, forward and backward")
    distilling = ways.add_parser("distill", help="a piece of a distillation; further options are training.distill's")
    for way in (checking, timing, comparing):
        way.add_argument("--device", default="cuda")
        way.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    for way, sizes, batches in ((timing, [224, 518, 1022], [1, 8, 32]), (comparing, [224], [2])):
        way.add_argument("--sizes", type=int, nargs="+", default=sizes, help="sides in pixels")
        way.add_argument("--batches", type=int, nargs="+", default=batches, help="images at once")
        way.add_argument("--layers", type=int, default=12)
        way.add_argument("--width", type=int, default=384, help=f"a multiple of {HEAD_DIM}")
        way.add_argument("--output", type=Path, required=True, help="JSON file")
    timing.add_argument("--repeats", type=int, default=15)
    distilling.add_argument("--config", type=Path, required=True, help="recipe, as for training.distill")
    distilling.add_argument("--minutes", type=float, required=True, help="after which it ends with a checkpoint")
    return parser


def main() -> None:
    parser = make_parser()
    options, more = parser.parse_known_args()
    if more and options.way != "distill":
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    sizes = getattr(options, "sizes", [PATCH])
    if any(size < PATCH or size % PATCH for size in sizes) or getattr(options, "width", HEAD_DIM) % HEAD_DIM:
        parser.error(f"sizes {sizes} must be multiples of {PATCH}, and the width one of {HEAD_DIM}")
    if options.way not in ("check", "distill") and options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device; rehearse with --device cpu and small sizes")
    ways: dict[str, Callable[..., int]] = {
        "check": check,
        "throughput": throughput,
        "parity": parity,
        "distill": partial(distill_piece, more=more),
    }
    try:
        sys.exit(ways[options.way](options))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
