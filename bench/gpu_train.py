"""The digits trained on CuPy and on NumPy by the command line: the same accuracy, the same files.

    python bench/gpu_train.py gpu-results

Writes ``train.json``; the exit status is 1 where accuracies are more than half a percent of the test images apart, or
where a file is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from xpconv.atomic import replacing

FILES = ("model.safetensors", "history.jsonl", "curves.png", "filters.png", "mistakes.png")
APART = 0.005


def trained(backend: str, out: Path, epochs: str) -> dict[str, object]:
    """Accuracy, seconds and files of one run."""
    started = time.perf_counter()
    folder = out / f"train-{backend}"
    command = [sys.executable, "-m", "xpconv", "train", "--backend", backend, "--epochs", epochs, "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout + done.stderr)
    found = re.search(r"^test accuracy: ([\d.]+)", done.stdout, re.MULTILINE)
    return {
        "accuracy": float(found[1]) if found else None,
        "seconds": round(time.perf_counter() - started, 2),
        "status": done.returncode,
        "missing": [name for name in FILES if not (folder / name).exists()],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", default="20")
    options = parser.parse_args()
    runs = {backend: trained(backend, options.out, options.epochs) for backend in ("cupy", "numpy")}
    gpu, cpu = (runs[backend]["accuracy"] for backend in ("cupy", "numpy"))
    right = gpu is not None and cpu is not None and abs(gpu - cpu) <= APART
    right = right and not any(run["missing"] or run["status"] for run in runs.values())
    headline = f"test accuracy {gpu} on CuPy, {cpu} on NumPy"
    report = {"what": "digits trained on two backends", "headline": headline, "ok": right, "runs": runs}
    if importlib.util.find_spec("cupy.emulation"):  # the tests' stand-in for CuPy
        report["emulated"] = True
    with replacing(options.out / "train.json") as beside:
        beside.write_text(json.dumps(report, indent=1) + "\n")
    print(headline)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
