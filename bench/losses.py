"""The losses that training steps are judged by, found beforehand: in float64 they take a GPU's machine minutes.

    python bench/losses.py

Writes ``xpconv/bench/losses.json`` for the steps that `bench/gpu.py` times. What it names is looked up by the bytes of
images and weights; where those have changed, the losses are found anew when they are wanted.
"""

from __future__ import annotations

import json

from xpconv.atomic import replacing
from xpconv.backend import use_backend
from xpconv.bench import sets
from xpconv.bench.truth import LOSSES, digest, losses
from xpconv.settings import use_engine

_DTYPES = ("bfloat16", "float32", "float16")
WANTED = (("steps", "", "float32"), *(("large_steps", "ResNet-50", dtype) for dtype in _DTYPES))


def main() -> None:
    found = {}
    for set_name, only, dtype in WANTED:
        for case in sets.chosen([set_name], only=only, dtype=dtype):
            arrays = case.arrays()
            with use_backend("numpy"), use_engine("portable"):
                pair = losses(case, arrays).tolist()
            found[digest(case, arrays)] = {"case": case.name, "dtype": dtype, "losses": pair}
            print(case.name, dtype, *pair, flush=True)
            with replacing(LOSSES) as beside:
                beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
