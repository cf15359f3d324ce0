# SPDX-License-Identifier: Apache-2.0
"""A process that knows nothing of this repository, as that of someone who has a Hub folder and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

# The import system forgets the repository, installed in editable mode though it may be.
FORGET = """
import importlib.util
import sys
from pathlib import Path
sys.path[:] = [path for path in sys.path if not (Path(path) / "modeling_alibi_dinov2").is_dir()]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
assert importlib.util.find_spec("modeling_alibi_dinov2") is None
"""


def run_as_stranger(script: str, folder: Path, *arguments: object, given: str | None = None) -> str:
    """Run a script in a process of its own, in a folder; `sys.argv` has the arguments, standard input what is given.

    Returns:
        What it printed.

    Raises:
        AssertionError: it failed.
    """
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", FORGET + script, *map(str, arguments)]
    result = subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
