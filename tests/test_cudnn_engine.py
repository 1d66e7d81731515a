"""The cuDNN engine from dispatch to the pointers that a plan gets, on the emulated CuPy, its graphs interpreted.

Run with `PYTHONPATH=tests/emulated`, where nvidia-cudnn-frontend is installed; elsewhere these are reported as skipped.
The laws run beside this on the row `cupy/cudnn`.
"""

from __future__ import annotations

import gc
import json
import threading
import weakref

import apart
import cudnn_interpreter
import cudnn_on_host
import numpy as np
import pytest

import xpconv
from xpconv import nn, ops
from xpconv.dispatch import registered
from xpconv.parity import Target, joined

engine = cudnn_on_host.required()
conv, library, plans, tune = engine.conv, engine.library, engine.plans, engine.plans.tune
cupy = library.cupy
RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def _strict_chain():
    """What the engine does not do by itself here fails."""
    with xpconv.use_engine("cudnn", "portable"):
        cudnn_interpreter.launches.clear()
        yield


def made(*shape, dtype="float32"):
    return cupy.asarray(RNG.standard_normal(shape).astype(dtype))


def fprop_options(x, w):
    """What dispatch passes on for a plain convolution."""
    return registered(ops.conv).bind(x, w).parts()[0][2]


def close(got, x, w, b=None, **options):
    """Compare with the portable engine on the host."""
    with xpconv.use_engine("portable"):
        expected = ops.conv(*(None if a is None else a.get() for a in (x, w, b)), **options)
    np.testing.assert_allclose(got.get(), expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_computed_in_float32_and_rounded_once():
    """The other dtypes are held to this by the laws."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    for c, o, groups, options in (
        (8, 16, 1, {"padding": 1, "activation": "silu"}),
        (3, 5, 1, {"stride": 2, "padding": ((2, 0), (0, 1)), "activation": "relu"}),
        (6, 9, 3, {"dilation": 2, "padding": "same"}),
        (4, 4, 4, {"padding": 1, "activation": "tanh"}),
    ):
        x, w, b = (made(*shape, dtype=bfloat16) for shape in ((2, 7, 6, c), (3, 3, c // groups, o), (o,)))
        y, pullback = xpconv.vjp(ops.conv, x, w, b, groups=groups, **options)
        dy = made(*y.shape, dtype=bfloat16)
        host = [a.get().astype("float64") for a in (x, w, b)]
        with xpconv.use_engine("portable"):
            expected, host_pullback = xpconv.vjp(ops.conv, *host, groups=groups, **options)
            grads = host_pullback(dy.get().astype("float64"))
        for got, wanted in zip((y, *pullback(dy)), (expected, *grads), strict=True):
            assert got.dtype == bfloat16
            error = np.abs(got.get().astype("float64") - wanted)
            assert (error <= 2.0**-8 * np.abs(wanted) + 1e-5 * np.abs(wanted).max()).all()


@pytest.mark.parametrize("activation", [None, *ops.activation.ACTIVATIONS])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_fused_is_done_after(dtype, residual, activation):
    x, w, b = made(2, 6, 5, 8, dtype=dtype), made(3, 3, 8, 8, dtype=dtype), made(8, dtype=dtype)
    options = {"padding": 1, "activation": activation}
    for bias in (None, b):
        y, pullback = xpconv.vjp(ops.conv, x, w, bias, residual=x if residual else None, **options)
        with xpconv.use_engine("portable"):
            host = [None if a is None else a.get() for a in (x, w, bias)]
            expected, host_pullback = xpconv.vjp(ops.conv, *host, residual=host[0] if residual else None, **options)
        np.testing.assert_allclose(y.get(), expected, rtol=1e-4, atol=1e-5)
        dy = made(*y.shape, dtype=dtype)
        for got, wanted in zip(pullback(dy), host_pullback(dy.get()), strict=True):
            assert (got is None) == (wanted is None)
            if got is not None:
                np.testing.assert_allclose(got.get(), wanted, rtol=1e-4, atol=1e-4)


def test_a_fused_call_is_one_launch_of_one_graph():
    x, w, b = made(2, 8, 8, 16), made(3, 3, 16, 16), made(16)
    ops.conv(x, w, b, padding=1, residual=x, activation="relu")
    assert cudnn_interpreter.launches == ["CONV_FPROP ADD ADD RELU_FWD"]


def test_a_norm_in_half_precision_is_part_of_the_launch_if_plans_may_take_their_time(monkeypatch, tmp_path):
    """Multiplied and shifted in float32, with the weights that the convolution has anyway."""
    monkeypatch.setenv("XPCONV_CACHE_DIR", str(tmp_path))
    clear()
    row = joined.check(Target("cupy", "cudnn"))
    assert row.ok, row.misses()
    assert (row.calls, row.declined) == (4 * len(joined.SAMPLES), 0)
    with xpconv.use_backend("cupy"):
        net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm(8)).initialize().to(dtype="float16")
    block, x = nn.Residual(net, activation="relu"), made(2, 6, 6, 8, dtype="float16")
    for tuned, launched in ((True, "CONV_FPROP MUL ADD ADD RELU_FWD"), (False, "CONV_FPROP ADD")):
        with xpconv.autotune(tuned):
            block(x)
            cudnn_interpreter.launches.clear()
            block(x)
        assert cudnn_interpreter.launches == [launched]
    clear()


def test_a_scaled_launch_is_told_of():
    x, w = made(2, 6, 6, 8, dtype="float16"), made(3, 3, 8, 8, dtype="float16")
    options, ones = fprop_options(x, w), cupy.ones(8, dtype="float32")
    options["epilogue"] = options["epilogue"]._replace(scale=ones, bias=ones, activation="relu")
    assert "NHWC in one launch with scale, bias, relu" in conv.PRIMITIVES["conv_fprop"].describe(x, w, **options)


@pytest.mark.parametrize(("dtype", "launched"), [("float32", "CONV_DGRAD ADD ADD"), ("float64", "CONV_DGRAD")])
def test_an_input_gradient_adds_its_residual_in_the_launch_or_after_it(dtype, launched):
    """In float64 the library adds neither that nor a bias to it."""
    x, w, b, side = (made(*shape, dtype=dtype) for shape in ((2, 6, 6, 16), (3, 3, 8, 16), (8,), (2, 12, 12, 8)))
    y = ops.conv_transpose(x, w, b, stride=2, padding="same", residual=side)
    assert cudnn_interpreter.launches == [launched]
    with xpconv.use_engine("portable"):
        host = [a.get() for a in (x, w, b)]
        expected = ops.conv_transpose(*host, stride=2, padding="same", residual=side.get())
    np.testing.assert_allclose(y.get(), expected, rtol=1e-4, atol=1e-4)


def test_nothing_is_planned_twice_and_a_second_call_looks_up(monkeypatch):
    x, w = made(2, 7, 8, 8), made(3, 3, 8, 8)
    ops.conv(x, w)
    monkeypatch.setattr(plans, "planned", lambda *a: pytest.fail("planned again"))
    close(ops.conv(x, w), x, w)
    close(ops.conv(x + 1, w), x + 1, w)


def test_a_call_looks_its_plan_up_once_and_keeps_none_of_its_arrays():
    x, w = made(2, 7, 9, 8), made(3, 3, 8, 8)

    def lookups(work):
        before = plans.find.cache_info()
        work()
        after = plans.find.cache_info()
        return after.hits + after.misses - before.hits - before.misses

    ops.conv(x, w)
    assert lookups(lambda: ops.conv(x, w)) == 1
    _, pullback = xpconv.vjp(ops.conv, x, w)
    assert lookups(lambda: pullback(ops.conv(x, w))) == 3
    xpconv.explain(ops.conv, x, w)
    gone = weakref.ref(x)
    x = pullback = None
    gc.collect()
    assert gone() is None


def test_settings_that_change_between_question_and_work_are_heeded():
    x, w = made(2, 7, 9, 16), made(3, 3, 16, 16)
    options = fprop_options(x, w)
    primitive, seen = conv.PRIMITIVES["conv_fprop"], []
    with xpconv.deterministic(True):
        assert primitive.declines(x, w, **options) is None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plans.Plan, "run", lambda self, *operands: seen.append(self.problem.deterministic))
        primitive.run(x, w, **options)
    assert seen == [False]


def test_strided_and_misaligned_arrays_are_copied():
    wide = made(2, 8, 7, 24)
    x, w = wide[:, ::-1, :, ::3], made(3, 3, 16, 8)[:, :, ::2]
    close(ops.conv(x, w, padding=1), x, w, padding=1)
    x, w = made(3, 5, 5, 1)[1:], made(3, 3, 1, 2)
    assert x.data.ptr % 16
    close(ops.conv(x, w), x, w)


def test_work_is_done_on_the_arrays_own_device():
    with cupy.cuda.Device(1):
        x, w = made(2, 6, 6, 8), made(3, 3, 8, 8)
    y, pullback = xpconv.vjp(ops.conv, x, w)
    assert y.device == x.device
    assert all(g.device == x.device for g in pullback(y))
    assert cupy.cuda.device.get_device_id() == 0


def test_a_parameters_weights_are_turned_once_and_again_after_a_change(monkeypatch):
    turned, turn = [], conv._last_axis_first
    monkeypatch.setattr(conv, "_last_axis_first", lambda w: turned.append(0) or turn(w))
    with xpconv.use_backend("cupy"):
        net = nn.Conv2d(8, 8, 3, padding=1).initialize()
    x = made(2, 6, 6, 8)
    y, pullback = net.vjp(x)
    pullback(y)
    net(x)
    assert len(turned) == 1  # also for the input gradient
    net.weight.assign(net.weight.value * 2)
    close(net(x), x, net.weight.value, net.bias.value, padding=1)
    assert len(turned) == 2
    ops.conv(x, net.weight.value), ops.conv(x, net.weight.value)
    assert len(turned) == 4


def test_each_stream_has_turned_weights_of_its_own(monkeypatch):
    """Another stream does not wait until they are made."""
    turned, real = [], conv._last_axis_first
    monkeypatch.setattr(conv, "_last_axis_first", lambda w: turned.append(w) or real(w))
    layer, other, x = nn.Conv2d(4, 8, 3), cupy.cuda.Stream(non_blocking=True), made(2, 6, 6, 4)
    for count in (1, 1):
        layer(x)
        assert len(turned) == count
    with other:
        layer(x), layer(x)
    layer(x)
    assert len(turned) == 2


def test_a_captured_graph_replays_with_new_input_new_weights_and_no_waiting():
    with xpconv.use_backend("cupy"):
        net = nn.Conv2d(8, 8, 3, padding=1, activation="relu").initialize()
    x, stream = made(2, 6, 6, 8), cupy.cuda.Stream(non_blocking=True)
    with stream:
        net(x)  # plans, handles
        stream.begin_capture()
        y = net(x)
        graph = stream.end_capture()
        for change in (x, net.weight.value):
            change[...] = change * -0.5
            before = cupy.emulation.counts["synchronisations"]
            graph.launch()
            assert cupy.emulation.counts["synchronisations"] == before
            close(y, x, net.weight.value, net.bias.value, padding=1, activation="relu")


def test_a_plan_that_a_graph_has_captured_outlives_its_place_among_the_kept():
    """The graph launches what belongs to the plan, long after other problems have taken its place."""
    x, w, stream = made(2, 6, 12, 8), made(3, 3, 8, 8), cupy.cuda.Stream(non_blocking=True)
    with stream:
        y = ops.conv(x, w)
        plan = conv._found(conv.fprop_problem(x, w, **fprop_options(x, w)))
        assert plan not in plans._captured
        stream.begin_capture()
        y = ops.conv(x, w)
        graph = stream.end_capture()
        plans.find.cache_clear()
        assert plan in plans._captured
        graph.launch()
    close(y, x, w)


def test_planning_while_a_graph_is_captured_says_what_to_do():
    x, w, stream = made(2, 6, 11, 8), made(3, 3, 8, 8), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with xpconv.use_engine("cudnn"), pytest.raises(xpconv.EngineError, match="run the same call once before the"):
            ops.conv(x, w)
        stream.end_capture()
        ops.conv(x, w)  # nothing of the refusal is remembered


def test_where_no_handle_can_be_made_the_chain_goes_on(monkeypatch):
    def failing(device):
        raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED")

    monkeypatch.setattr(library, "place", failing)
    x, w = made(2, 6, 13, 8), made(3, 3, 8, 8)
    assert "cannot start here: CUDNN_STATUS_NOT_INITIALIZED" in xpconv.explain(ops.conv, x, w)["cudnn"]
    close(ops.conv(x, w), x, w)
    assert not cudnn_interpreter.launches


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
        execute(plan.graph, {1: 256, 2: 512, 3: 768}, 0, plan.index, 0)


def test_a_plan_gets_its_workspace(monkeypatch):
    taken, alloc = [], cupy.cuda.alloc
    monkeypatch.setattr(cupy.cuda, "alloc", lambda n: taken.append(n) or alloc(n))
    x, w, b = made(2, 8, 8, 64), made(3, 3, 64, 64), made(64)
    ops.conv(x, w, b, padding=1)
    assert len(taken) == 1
    assert taken[0] > 0
    with xpconv.workspace_limit(taken[0] - 1):
        close(ops.conv(x, w, b, padding=1), x, w, b, padding=1)
    assert taken[1:] in ([], [n for n in taken[1:] if n < taken[0]])


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


@pytest.fixture
def choices(monkeypatch, tmp_path):
    """A folder for choices of plans, and a clock by which the third plan is the fastest."""
    monkeypatch.setenv("XPCONV_CACHE_DIR", str(tmp_path))
    times = iter([3.0, 2.0, 1.0] + [4.0] * 100)
    monkeypatch.setattr(tune, "seconds", lambda run: (run(), next(times))[1])
    clear()
    yield tmp_path
    clear()


def clear():
    for cached in (plans.find, tune.path, tune._choices):
        cached.cache_clear()


def test_autotune_times_plans_once_and_keeps_the_choice_on_disk(choices, monkeypatch):
    x, w = made(2, 8, 8, 16, dtype="float16"), made(3, 3, 16, 16, dtype="float16")
    by_rank = plans.find(conv.wgrad_problem(x, x, **wgrad_options())).name
    with xpconv.autotune(True):
        wgrad(x)
        assert len(cudnn_interpreter.launches) > 3
        asked = conv.wgrad_problem(x, x, **wgrad_options())
        chosen = plans.find(asked).name
        assert chosen != by_rank
        (file,) = (choices / "cudnn").iterdir()
        assert file.name == f"interpreted-on-the-CPU-{library.VERSION}.json"
        assert list(json.loads(file.read_text()).values()) == [chosen]
        clear()
        monkeypatch.setattr(tune, "seconds", lambda run: pytest.fail("timed again"))
        wgrad(x)
        assert plans.find(asked).name == chosen
        assert "by measurement" in conv._told(asked)
    assert w.shape == (3, 3, 16, 16)


def wgrad_options():
    from xpconv.window import conv_window

    return {"window": conv_window("conv", (8, 8), (3, 3), 1, 1), "groups": 1, "w_shape": (3, 3, 16, 16)}


def wgrad(x):
    return conv.PRIMITIVES["conv_wgrad"].run(x, x, **wgrad_options())


@pytest.mark.parametrize("failing", [MemoryError, RuntimeError])
def test_candidates_that_do_not_run_are_not_chosen(choices, monkeypatch, failing):
    x = made(2, 8, 8, 16, dtype="float16")
    with xpconv.autotune(True):
        plan = plans.find(conv.wgrad_problem(x, x, **wgrad_options()))
        tries = iter(range(100))

        def seconds(run):
            if (i := next(tries)) != 4:
                raise failing
            return float(i)

        monkeypatch.setattr(tune, "seconds", seconds)
        wgrad(x)
        options = [index for index, _ in plans._fitting(plan.graph, plan.problem)]
        assert plan.index == options[4]
        assert json.loads(tune.path(0).read_text()) == {tune._key(plan.problem): plan.name}


def test_where_no_candidate_runs_the_first_stays_and_nothing_is_kept(choices, monkeypatch):
    x = made(2, 8, 8, 16, dtype="float16")
    with xpconv.autotune(True):
        plan = plans.find(conv.wgrad_problem(x, x, **wgrad_options()))
        first = plan.index

        def failing(run):
            raise MemoryError

        monkeypatch.setattr(tune, "seconds", failing)
        wgrad(x)
        assert plan.index == first
        assert not tune.path(0).exists()


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 3}', None])
def test_a_damaged_file_of_choices_is_as_good_as_none(choices, content):
    x = made(2, 8, 8, 16, dtype="float16")
    with xpconv.autotune(True):
        file = tune.path(0)
        file.parent.mkdir()
        if content is None:  # one of an earlier version, whose plan is there no longer
            content = json.dumps({tune._key(conv.wgrad_problem(x, x, **wgrad_options())): "eng99_k1=1"})
        file.write_text(content)
        wgrad(x)
        assert "eng" in json.loads(file.read_text())[tune._key(conv.wgrad_problem(x, x, **wgrad_options()))]


def test_choices_of_other_processes_are_kept(choices):
    x = made(2, 8, 8, 16, dtype="float16")
    with xpconv.autotune(True):
        file = tune.path(0)
        assert tune.known(conv.wgrad_problem(x, x, **wgrad_options())) is None
        file.parent.mkdir()
        file.write_text(json.dumps({"theirs": "eng1"}))
        wgrad(x)
        assert json.loads(file.read_text())["theirs"] == "eng1"


def test_where_nothing_can_be_kept_a_warning_says_so(choices):
    x = made(2, 8, 8, 16, dtype="float16")
    (choices / "cudnn").write_text("in the way")
    with xpconv.autotune(True), pytest.warns(RuntimeWarning, match="each process measures them anew"):
        wgrad(x)


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
