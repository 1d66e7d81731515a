"""The BLAS behind NumPy: which it is, which kernels it runs, and what might make it faster."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Blas(NamedTuple):
    """NumPy's BLAS; ``kernels`` is the CPU type whose kernels OpenBLAS has chosen, empty where it cannot be asked."""

    name: str
    version: str
    kernels: str


def blas() -> Blas:
    """The BLAS that NumPy was built with."""
    facts = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    name, version = str(facts.get("name", "unknown")), str(facts.get("version", ""))
    return Blas(name, version, _openblas_kernels() if "openblas" in name else "")


def _openblas_kernels() -> str:
    """Ask the OpenBLAS that is loaded: NumPy's build record names the kernels of the machine it was built on."""
    try:
        loaded = set(re.findall(r"\S*openblas\S*", Path("/proc/self/maps").read_text()))
    except OSError:
        return ""
    for path in sorted(loaded, key=lambda path: "numpy" not in path):
        library = ctypes.CDLL(path)
        for name in (
            "scipy_openblas_get_corename64_",
            "scipy_openblas_get_corename",
            "openblas_get_corename64_",
            "openblas_get_corename",
        ):
            corename = getattr(library, name, None)
            if corename is not None:
                corename.restype = ctypes.c_char_p
                return (corename() or b"").decode()
    return ""


def openblas_advice(found: Blas, cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """What to try where OpenBLAS leaves AVX-512 unused on an AMD CPU, which some of its versions do."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return None
    wide = "AuthenticAMD" in text and re.search(r"\bavx512f\b", text)
    uses_it = found.kernels in ("SkylakeX", "Cooperlake", "SapphireRapids")
    if "openblas" not in found.name or not wide or uses_it or os.environ.get("OPENBLAS_CORETYPE"):
        return None
    chosen = f"its {found.kernels} kernels" if found.kernels else "kernels that may not use it"
    return (
        f"this AMD CPU has AVX-512, and NumPy's OpenBLAS runs {chosen}: try "
        "OPENBLAS_CORETYPE=SkylakeX in the environment, and measure with and without; it is often faster, not always."
    )
