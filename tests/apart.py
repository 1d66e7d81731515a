"""Code run in a process of its own, for what an environment, a fresh start or an exit changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(code: str, *, check: bool = True, timeout: float = 250, **environment: object) -> subprocess.CompletedProcess:
    """Run Python code that may import from the tests; `None` takes a variable out of the environment."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))}
    env.update({name: str(value) for name, value in environment.items() if value is not None})
    for name in [name for name, value in environment.items() if value is None]:
        env.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=timeout)
    assert not check or done.returncode == 0, done.stderr
    return done
