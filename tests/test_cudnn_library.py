"""What the cuDNN engine needs of its surroundings: shared libraries that are found, a handle for each thread."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace

import apart
import cudnn_interpreter
import cudnn_on_host
import pytest
from cudnn_calls import (
    close,
    conv,
    cupy,
    engine,
    library,
    made,
    plans,
    strict_chain,  # noqa: F401 - for every test
    wgrad_options,
)

import xpconv
from xpconv import ops


def test_where_no_handle_can_be_made_the_chain_goes_on(monkeypatch):
    def failing(device):
        raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED")

    monkeypatch.setattr(library, "place", failing)
    x, w = made(2, 6, 13, 8), made(3, 3, 8, 8)
    assert "cannot start here: CUDNN_STATUS_NOT_INITIALIZED" in xpconv.explain(ops.conv, x, w)["cudnn"]
    close(ops.conv(x, w), x, w)
    assert not cudnn_interpreter.launches


@pytest.mark.parametrize("at", ["planned", "built"])
def test_a_lack_of_memory_is_no_refusal_to_be_remembered(monkeypatch, at):
    """The library allocates by itself, and CuPy's pool may hold all that it does not use: it is asked for that once."""
    x, w, planned = made(2, 6, 5, 16), made(3, 3, 16, 16), plans.planned
    asked, freed = [], []

    def short(*_):
        raise library.Refusal[0]("Reason: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")

    def failing(*of):
        asked.append(of)
        if len(asked) > 2:
            return planned(*of)
        return (
            short()
            if at == "planned"
            else SimpleNamespace(get_execution_plan_count=lambda: 1, build_plan_at_index=short)
        )

    plans.find.cache_clear()
    monkeypatch.setattr(plans, "planned", failing)
    monkeypatch.setattr(cupy.get_default_memory_pool(), "free_all_blocks", lambda: freed.append(len(asked)))
    close(ops.conv(x, w), x, w)
    assert not cudnn_interpreter.launches  # by the next engine
    assert freed == [1]
    close(ops.conv(x, w), x, w)
    assert cudnn_interpreter.launches


def handles_of_their_own(monkeypatch, create):
    """The engine's own handles, made by a function."""
    monkeypatch.setattr(library, "handle", cudnn_on_host.replaced["handle"])
    monkeypatch.setattr(library.cudnn, "create_handle", create)
    monkeypatch.setattr(library.cudnn, "set_stream", lambda handle, stream: None)
    for name, empty in (("_local", library._Local()), ("_free", {}), ("_failed", {})):
        monkeypatch.setattr(library, name, empty)


def test_a_handle_that_cannot_be_made_is_not_asked_for_at_every_call(monkeypatch):
    """Asking may take longer than the convolution; and where there is none, plans that are there are of no use."""
    asked, now = [], [100.0]

    def failing():
        asked.append(0)
        raise RuntimeError("no handle")

    x, w = made(2, 6, 5, 16), made(3, 3, 16, 16)
    ops.conv(x, w)
    assert cudnn_interpreter.launches
    cudnn_interpreter.launches.clear()
    handles_of_their_own(monkeypatch, failing)
    monkeypatch.setattr(library.time, "monotonic", lambda: now[0])
    for _ in range(3):
        close(ops.conv(x, w), x, w)
    assert "cannot start here: no handle" in xpconv.explain(ops.conv, x, w)["cudnn"]
    assert len(asked) == 1
    now[0] += library._PATIENCE
    ops.conv(x, w)
    assert len(asked) == 2
    monkeypatch.setattr(library.cudnn, "create_handle", lambda: 7)
    now[0] += library._PATIENCE
    assert not cudnn_interpreter.launches
    ops.conv(x, w)
    assert cudnn_interpreter.launches


def test_a_thread_without_a_handle_that_captures_leaves_the_call_to_the_next_engine(monkeypatch):
    """Also where another thread has found the plan."""
    x, w, stream = made(2, 6, 4, 16), made(3, 3, 16, 16), cupy.cuda.Stream(non_blocking=True)
    ops.conv(x, w)
    handles_of_their_own(monkeypatch, lambda: 7)
    with stream:
        stream.begin_capture()
        assert "run the same call once before" in xpconv.explain(ops.conv, x, w)["cudnn"]
        stream.end_capture()
        assert xpconv.explain(ops.conv, x, w)["cudnn"].startswith("chosen")


def test_the_call_that_runs_a_plan_is_one_that_the_frontend_takes():
    """As far as it goes without a device: to the handle, which is none."""
    plan = plans.find(conv.wgrad_problem(x := made(2, 8, 8, 16), x, **wgrad_options()))
    execute = cudnn_on_host.replaced["execute"]
    with pytest.raises(RuntimeError, match="handle is NULL"):
        execute(plan.way.graph, {1: 256, 2: 512, 3: 768}, 0, plan.way.index, 0)


def test_threads_share_plans_and_have_handles_of_their_own(monkeypatch):
    """A thread that ends leaves its handle to the next; a handle is told of a stream only when that changes."""
    created, streams = [], []
    handles_of_their_own(monkeypatch, lambda: created.append(0) or 100 + len(created))
    monkeypatch.setattr(library.cudnn, "set_stream", lambda handle, stream: streams.append((handle, stream)))
    used, execute = [], library.execute
    monkeypatch.setattr(library, "execute", lambda *a: used.append(a[-1]) or execute(*a))
    x, w = made(2, 8, 8, 8), made(3, 3, 8, 8)
    misses = plans.find.cache_info().misses
    both = threading.Barrier(2, timeout=60)

    def work():
        with xpconv.use_engine("cudnn", "portable"):
            both.wait()
            close(ops.conv(x, w), x, w)
            ops.conv(x, w)
            both.wait()

    for _ in range(2):  # two threads at a time
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gc.collect()
    assert len(created) == 2
    assert set(used) == {101, 102}
    assert plans.find.cache_info().misses - misses <= 2
    assert len(streams) == 2


def test_facts_tell_versions():
    facts = engine.facts()
    assert facts["cuDNN"] == library.VERSION
    assert set(facts) == {"cuDNN", "frontend", "plans"}


@pytest.mark.parametrize(("module", "package"), [("cudnn", "nvidia-cudnn-frontend"), ("cupy", "CuPy")])
def test_what_is_missing_is_named_with_what_to_install(module, package):
    code = (
        "import importlib.util; find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *a: None if name == {module!r} else find(name, *a)\n"
        "from xpconv import dispatch; print(dispatch.engine_primitives('cudnn'))"
    )
    told = apart.run(code).stdout
    assert f"it needs {package}: pip install 'xpconv[cudnn13]'" in told


STARTS = "from xpconv import dispatch; print(dispatch.engine_primitives('cudnn'))"


def test_cudnn_is_found_where_python_finds_it():
    """The frontend looks in one folder of packages: not in a user's own, nor in that of a parent environment."""
    code = (
        "import sysconfig; find = sysconfig.get_path\n"
        "sysconfig.get_path = lambda name, *a, **k: '/nowhere' if name == 'purelib' else find(name, *a, **k)\n"
        "import cudnn_on_host; cudnn_on_host.missing()\n" + STARTS
    )
    assert "conv_fprop" in apart.run(code).stdout


def test_without_cublas_the_engine_is_not_there():
    """The library would end the process when it first plans."""
    code = (
        "from cuda import pathfinder\n"
        "def load(name): raise RuntimeError(f'{name} is nowhere')\n"
        "pathfinder.load_nvidia_dynamic_lib = load\n" + STARTS
    )
    assert "cuDNN needs cuBLAS, which is not found: cublasLt is nowhere" in apart.run(code).stdout


def test_several_cudnns_in_one_place_are_a_reason():
    code = "import glob; find = glob.glob\nglob.glob = lambda p, *a, **k: 2 * find(p, *a, **k)\n" + STARTS
    assert "cuDNN's frontend does not load here: Found 2 libcudnn" in apart.run(code).stdout
