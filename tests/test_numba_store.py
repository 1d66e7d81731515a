"""Compiled kernels on disk: used again, refused where others may write, made anew where damaged, or done without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from apart import HERE, run

import xpconv

pytest.importorskip("numba")

from xpconv.engines.numba import compiled, store

RELU = """
import sys, warnings
warnings.simplefilter("always")
import numpy as np
import xpconv
from xpconv import ops

x = np.linspace(-1, 1, 1000, dtype="float32")
with xpconv.use_engine("numba"):
    assert np.array_equal(ops.relu(x), np.maximum(x, 0))
print("compiled" if "numba" in sys.modules else "from disk")
"""


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """A folder in which the kernels of RELU are kept."""
    folder = tmp_path_factory.mktemp("kernels") / "not made yet"
    assert run(RELU, XPCONV_CACHE_DIR=folder).stdout == "compiled\n"
    return folder


@pytest.fixture
def copy(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "copy")


def kernels(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_second_process_loads_what_the_first_compiled_and_never_imports_numba(kept):
    before = {path: path.stat().st_mtime_ns for path in kernels(kept)}
    assert len(before) >= 2
    done = run(RELU, XPCONV_CACHE_DIR=kept)
    assert (done.stdout, done.stderr) == ("from disk\n", "")
    assert {path: path.stat().st_mtime_ns for path in kernels(kept)} == before


def test_only_the_owner_may_write_to_what_is_kept(kept):
    assert [path.stat().st_mode & 0o777 for path in kernels(kept)] == [0o600] * len(kernels(kept))
    assert [path.stat().st_mode & 0o777 for path in kept.iterdir()] == [0o700]


def damaged():
    return {
        "cut short": lambda content: content[: len(content) // 2],
        "empty": lambda content: b"",
        "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    }


@pytest.mark.parametrize("damage", damaged().values(), ids=damaged())
def test_a_damaged_file_is_made_anew(copy, damage):
    for path in kernels(copy):
        path.write_bytes(damage(path.read_bytes()))
    assert (run(RELU, XPCONV_CACHE_DIR=copy).stdout) == "compiled\n"
    assert (run(RELU, XPCONV_CACHE_DIR=copy).stdout) == "from disk\n"


def test_a_file_that_was_moved_is_made_anew(copy):
    submit, relu = (next(path for path in kernels(copy) if name in path.name) for name in ("submit", "relu"))
    submit.write_bytes(relu.read_bytes())
    assert (run(RELU, XPCONV_CACHE_DIR=copy).stdout) == "compiled\n"


def warned(done) -> bool:
    """Whether there was exactly one warning, which says what to do."""
    assert done.stderr.count("RuntimeWarning") == 1, done.stderr
    assert "set XPCONV_CACHE_DIR to a folder of your own" in done.stderr
    return True


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no such owners here")
@pytest.mark.parametrize("what", ["folder", "files"])
def test_what_others_may_write_to_is_not_run(copy, what):
    for path in copy.iterdir() if what == "folder" else kernels(copy):
        path.chmod(0o770)
    done = run(RELU, XPCONV_CACHE_DIR=copy)
    assert done.stdout == "compiled\n"
    assert warned(done)
    assert "may be written by, another user" in done.stderr
    if what == "files":
        assert run(RELU, XPCONV_CACHE_DIR=copy).stdout == "from disk\n", "files are replaced by one's own"


def test_without_a_folder_each_process_compiles(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(RELU, XPCONV_CACHE_DIR=tmp_path / "file" / "folder")
    assert done.stdout == "compiled\n"
    assert warned(done)


def test_a_folder_that_may_only_be_read_serves_what_it_has(copy):
    for path in (copy, *copy.iterdir()):
        path.chmod(0o500)
    if os.access(copy, os.W_OK):
        pytest.skip("this user may write anywhere")
    assert run(RELU, XPCONV_CACHE_DIR=copy).stdout == "from disk\n"
    done = run(RELU.replace("relu(x)", "relu6(x)"), XPCONV_CACHE_DIR=copy)
    assert done.stdout == "compiled\n"
    assert warned(done)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    full = """
import pathlib
def write_bytes(path, data):
    path.touch()
    with open("/dev/full", "wb") as file:
        file.write(data)
pathlib.Path.write_bytes = write_bytes
"""
    done = run(full + RELU, XPCONV_CACHE_DIR=tmp_path)
    assert done.stdout == "compiled\n"
    assert warned(done)
    assert "No space left" in done.stderr
    assert kernels(tmp_path) == []


def test_a_user_without_a_home_is_warned(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in (store.VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(store, "_failed", "")
    with pytest.warns(RuntimeWarning, match="Could not determine home directory"):
        assert store.read("version", "kernel") is None
    store.write("version", "kernel", b"code")  # and not again
    assert store.where() == "nowhere (Could not determine home directory.)"


def test_a_folder_that_cannot_be_written_is_not_said_to_keep_anything(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "_failed", "")
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "not" / "made"))
    assert store.where() == str(tmp_path / "not" / "made")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # which for root is always true
    assert store.where() == f"nowhere ({tmp_path} cannot be written)"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="cannot be kept on disk"):
        store.write("version", "kernel", b"code")
    assert store.where().startswith("nowhere (")


def test_where_kernels_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv(store.VARIABLE, str(tmp_path))
    assert store.folder() == tmp_path
    store.write("version", "kernel", b"code")
    assert store.read("version", "kernel") == b"code"
    assert store.read("version", "another") is None
    assert store.where() == str(tmp_path)
    monkeypatch.delenv(store.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if sys.platform not in ("win32", "darwin"):
        assert store.folder() == tmp_path / "cache" / "xpconv"


def test_two_processes_may_compile_at_once(tmp_path):
    environment = {**os.environ, "XPCONV_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(HERE)}
    both = [subprocess.Popen([sys.executable, "-c", RELU], env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=250)[1] == b""
        assert process.returncode == 0
    assert run(RELU, XPCONV_CACHE_DIR=tmp_path).stdout == "from disk\n"


def test_all_that_kernels_are_made_of_names_their_version():
    """A kernel's code follows from the modules that are hashed: those that kernels import are among them."""
    from test_imports import imported

    from xpconv.engines.numba.compiled import SOURCES

    here = Path(xpconv.__file__).parent / "engines" / "numba"
    for path in (here / "kernels").glob("*.py"):
        for name in imported(path):
            inside = name.removeprefix("xpconv.engines.numba.")
            module = inside.split(".")[0] if inside != name else f"../../{name.split('.')[1]}"
            assert module == "kernels" or f"{module}.py" in SOURCES, f"{path.name} imports {name}"


@pytest.mark.parametrize(
    "key", [("direct", "direct", "float32", 4, 0, 1, 4, True, None), ("loss", "reduce", "float32")]
)
def test_object_code_shows_one_name_alone(key):
    """What different processes compiled is loaded side by side, and what else it defines may have the same names."""
    code = compiled._lowered(key)
    defined = [part for part in (*code.functions, *code.global_variables) if not part.is_declaration]
    shown = [part.name for part in defined if part.linkage.name not in ("internal", "private")]
    assert shown == [compiled._symbol(key)]
