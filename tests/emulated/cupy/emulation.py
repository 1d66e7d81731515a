"""What tests may look at: how often the host waited for the device, and how many kernels were launched."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

NAME = "emulated on the CPU"
DEVICES = 2

counts: Counter[str] = Counter()  # "synchronisations", "launches" and, with those of graphs, "runs"
used: set[object] = set()  # functions and kernels so far, with the dtypes of their arrays
first_in_a_graph: list[object] = []  # those of them that were used for the first time while a stream was captured
from_the_last: bool | None = None  # whether launches run threads from the last to the first; None: every other one


def cache_folder() -> Path:
    """Where compiled kernels are kept from one run to the next."""
    root = os.environ.get("EMULATED_CUPY_CACHE_DIR") or Path(tempfile.gettempdir()) / f"emulated-cupy-{os.getuid()}"
    folder = Path(root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
