# SPDX-License-Identifier: Apache-2.0
"""How time and memory are measured."""

import ctypes
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers


def memory_status(field: str) -> int:
    """A figure of this process (`VmRSS`, `VmHWM`) or of the machine (`MemAvailable`), in bytes; Linux only."""
    for path in ("/proc/self/status", "/proc/meminfo"):
        for line in Path(path).read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    raise ValueError(f"The kernel reports no {field}; memory is measured on Linux only.")


def time_and_memory(run: Callable[[], Any]) -> dict[str, float]:
    """Seconds of a run, and the peak of the resident memory during it, of the process and less what was there before.

    To be called in a process of its own, after something small has filled the kernels' own buffers.
    """
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator keeps would hide what the run needs
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before, start = memory_status("VmRSS"), time.perf_counter()
    run()
    seconds, peak = time.perf_counter() - start, memory_status("VmHWM")
    return {"seconds": seconds, "memory_bytes": peak - before, "process_bytes": peak}


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process that has the libraries loaded, and has computed nothing yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["modeling_alibi_dinov2"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def time_in_turns(runs: Mapping[str, Callable[[], Any]], repeats: int, advance: Callable[[str], Any]) -> dict[str, Any]:
    """Median seconds and first output of each run.

    Every round starts with another run, so that none always follows the same; the first round is not counted.
    """
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    outputs: dict[str, Any] = {}
    for repeat in range(repeats + 1):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            advance(name)
            start = time.perf_counter()
            output = runs[name]()
            times[name].append(time.perf_counter() - start)
            outputs.setdefault(name, output)
    return {name: (statistics.median(times[name][1:]), outputs[name]) for name in names}


def read_record(path: Path | None, facts: dict[str, Any], entries: str) -> dict[str, Any]:
    """The record to go on with: an earlier one made under the same conditions, or one without entries.

    Args:
        path: of the record, if it is written.
        facts: the conditions.
        entries: under which name the record holds what was measured.

    Raises:
        ValueError: the file is no such record, or its figures cannot stand beside new ones.
    """
    if path is None or not path.exists():
        return facts | {entries: {}}
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict) or any(record.get(name) != value for name, value in facts.items()):
        raise ValueError(f"{path} was not made with {facts}. Choose another file, or remove this one.")
    return record


def machine_facts() -> dict[str, Any]:
    """What the figures depend on besides the settings."""
    return {
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
