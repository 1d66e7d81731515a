"""What `autotune` does on the cuDNN engine: plans timed in one layout or two, choices kept on disk."""

from __future__ import annotations

import itertools
import json
import types

import cudnn_interpreter
import pytest
from cudnn_calls import (
    clear,
    close,
    conv,
    cupy,
    fprop_options,
    library,
    made,
    own_choices,  # noqa: F401 - a fixture
    plans,
    strict_chain,  # noqa: F401 - for every test
    tune,
    wgrad,
    wgrad_options,
)

import xpconv
from xpconv import nn, ops
from xpconv.dispatch import registered
from xpconv.parity import Target, case_of, measure


@pytest.fixture
def choices(own_choices, monkeypatch):  # noqa: F811 - the fixture
    """A folder for choices of plans, and a clock by which the third plan is the fastest, however slow the machine."""
    monkeypatch.setattr(plans, "_BUILDING", 1e9)
    times = iter([3.0, 2.0, 1.0] + [4.0] * 100)
    monkeypatch.setattr(tune, "seconds", lambda run: (run(), next(times))[1])
    return own_choices


def test_autotune_times_plans_once_and_keeps_the_choice_on_disk(choices, monkeypatch):
    x, w = made(2, 8, 8, 16, dtype="float16"), made(3, 3, 16, 16, dtype="float16")
    by_rank = plans.find(conv.wgrad_problem(x, x, **wgrad_options())).way.name
    with xpconv.autotune(True):
        wgrad(x)
        assert len(cudnn_interpreter.launches) > 3
        asked = conv.wgrad_problem(x, x, **wgrad_options())
        chosen = plans.find(asked).way.name
        assert chosen != by_rank
        (file,) = (choices / "cudnn").iterdir()
        assert file.name == f"interpreted-on-the-CPU-{library.VERSION}.json"
        assert list(json.loads(file.read_text()).values()) == [f"NHWC {chosen}"]
        clear()
        monkeypatch.setattr(tune, "seconds", lambda run: pytest.fail("timed again"))
        built, way = [], plans.Way
        monkeypatch.setattr(plans, "Way", lambda *of: built.append(of) or way(*of))
        wgrad(x)
        assert plans.find(asked).way.name == chosen
        assert len(built) == 1  # those before it are not: the library may have to compile them
        assert "by measurement" in conv._told(asked)
    assert w.shape == (3, 3, 16, 16)


def test_plans_that_take_long_to_build_are_few(choices, monkeypatch):
    clock, timed = itertools.count(), []
    monkeypatch.setattr(plans, "_BUILDING", 2)
    monkeypatch.setattr(plans, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(tune, "seconds", lambda run: timed.append(run) or 1.0)
    with xpconv.autotune(True):
        wgrad(made(2, 8, 8, 16, dtype="float16"))
    assert len(timed) == 3


def test_what_another_layout_takes_before_its_first_plan_counts_too(choices, monkeypatch):
    clock, timed, planned = [0.0], [], plans.planned

    def slowly(asked, place):
        clock[0] += 3
        return planned(asked, place)

    monkeypatch.setattr(plans, "_BUILDING", 2)
    monkeypatch.setattr(plans, "monotonic", lambda: clock[0])
    monkeypatch.setattr(plans, "planned", slowly)
    monkeypatch.setattr(tune, "seconds", lambda run: timed.append(run.args[0].problem.layout) or 1.0)
    with xpconv.autotune(True):
        wgrad(made(2, 8, 8, 16))
    assert timed.count("NHWC") > 1
    assert timed.count("NCHW") == 1


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
        ways = [way.index for way in plans._fitting(plan.way.graph, plan.problem)]
        assert plan.way.index == ways[4]
        if failing is MemoryError:  # another time there may be enough
            assert not tune.path(0).exists()
        else:
            assert json.loads(tune.path(0).read_text()) == {tune._key(plan.problem): plan.way.choice}


def test_where_no_candidate_runs_the_first_stays_and_nothing_is_kept(choices, monkeypatch):
    x = made(2, 8, 8, 16, dtype="float16")
    with xpconv.autotune(True):
        plan = plans.find(conv.wgrad_problem(x, x, **wgrad_options()))
        first = plan.way

        def failing(run):
            raise MemoryError

        monkeypatch.setattr(tune, "seconds", failing)
        wgrad(x)
        assert plan.way is first
        assert not tune.path(0).exists()


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 3}', None])
def test_a_damaged_file_of_choices_is_as_good_as_none(choices, content):
    x = made(2, 8, 8, 16, dtype="float16")
    with xpconv.autotune(True):
        file = tune.path(0)
        file.parent.mkdir()
        asked = tune._key(conv.wgrad_problem(x, x, **wgrad_options()))
        if content is None:  # one of an earlier version, whose plan is there no longer
            content = json.dumps({asked: "NHWC eng99_k1=1"})
        file.write_text(content)
        wgrad(x)
        assert json.loads(file.read_text())[asked].startswith("NHWC eng")


@pytest.mark.parametrize(("took", "held"), [(0.001, 0.006), (60.0, 0.1)])
def test_what_is_timed_is_the_device_which_waits_until_the_host_has_handed_out_all_runs(
    own_choices,  # noqa: F811
    monkeypatch,
    took,
    held,
):
    log, hold, times, clock = [], tune._hold, iter([3.0, 1.0, 2.0]), iter([0.0, took])

    class Event:
        def record(self):
            log.append("event")

        def synchronize(self):
            log.append("the host waits")

    monkeypatch.setattr(cupy.cuda, "Event", Event)
    monkeypatch.setattr(cupy.cuda, "get_elapsed_time", lambda start, end: next(times))
    monkeypatch.setattr(tune, "_hold", lambda duration: (hold(duration), log.append(duration)))
    monkeypatch.setattr(tune, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    assert tune.seconds(lambda: log.append("run")) == 0.001
    assert log == ["run", "run", pytest.approx(held), *["event", "run", "event"] * 3, "the host waits"]


def test_choices_of_other_processes_are_kept(choices):
    x = made(2, 8, 8, 16, dtype="float16")
    with xpconv.autotune(True):
        file = tune.path(0)
        assert tune.known(conv.wgrad_problem(x, x, **wgrad_options())) is None
        file.parent.mkdir()
        file.write_text(json.dumps({"theirs": "NHWC eng1"}))
        wgrad(x)
        assert json.loads(file.read_text())["theirs"] == "NHWC eng1"


def test_where_nothing_can_be_kept_a_warning_says_so(choices):
    x = made(2, 8, 8, 16, dtype="float16")
    (choices / "cudnn").write_text("in the way")
    with xpconv.autotune(True), pytest.warns(RuntimeWarning, match="each process measures them anew"):
        wgrad(x)


# -- layouts -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def first(choices, monkeypatch):
    """A clock by which plans with channels first are faster; and the layout of every plan that runs, by direction."""
    ran, real = {}, plans.Way.run

    def run(way, *operands):
        ran[way.problem.direction] = way.problem.layout
        real(way, *operands)

    monkeypatch.setattr(plans.Way, "run", run)
    monkeypatch.setattr(plans, "_CANDIDATES", 1)  # some are compiled
    monkeypatch.setattr(tune, "seconds", lambda call: 1.0 if call.args[0].problem.layout == "NCHW" else 2.0)
    with xpconv.autotune(True):
        yield ran


TURNED = {
    "conv": ("dilation and stride", "groups", "depthwise", "1-D causal", "3-D", "relu", "residual and tanh"),
    "conv_transpose": ("depthwise", "3-D", "output padding", "residual, 1x1"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", TURNED)
def test_where_channels_first_is_faster_arrays_are_turned_and_answers_stay(first, op, dtype):
    case = case_of(op)
    forward, backward = ("fprop", "dgrad") if op == "conv" else ("dgrad", "fprop")
    for sample in (sample for sample in case.samples if sample.name in TURNED[op]):
        first.clear()
        errors = measure(case, sample, Target("cupy", "cudnn"), dtype)
        assert max(errors.values()) <= 1, f"{sample.name}: {errors}"
        assert first == {forward: "NCHW", backward: "NCHW", "wgrad": "NCHW"}, sample.name


@pytest.mark.parametrize(("with_residual", "activation"), [(True, "relu"), (False, "silu")])
def test_what_the_library_does_not_fuse_with_channels_first_is_done_after_it(
    first, monkeypatch, with_residual, activation
):
    """Beside what it fuses in our layout; and the choice is found again on disk."""
    x, w, b = made(2, 6, 5, 8), made(3, 3, 8, 4), made(4)
    options = {"activation": activation, "residual": made(2, 4, 3, 4) if with_residual else None}
    with xpconv.autotune(False):
        assert " after it" not in xpconv.explain(ops.conv, x, w, b, **options)["cudnn"]
    for timed in (True, False):
        first.clear()
        close(ops.conv(x, w, b, **options), x, w, b, **options)
        assert first == {"fprop": "NCHW"}
        told = xpconv.explain(ops.conv, x, w, b, **options)["cudnn"]
        left = f"residual, {activation}" if with_residual else activation
        assert f"with bias, {left} after it, plan eng" in told
        assert "by measurement" in told
        if timed:
            clear()
            monkeypatch.setattr(tune, "seconds", lambda call: pytest.fail("timed again"))


def test_sums_that_are_kept_are_turned_back_too(first):
    x, w, b = made(2, 6, 5, 8), made(3, 3, 8, 4), made(4)
    y, pullback = xpconv.vjp(ops.conv, x, w, b, activation="tanh")
    dy = made(*y.shape)
    close(y, x, w, b, dy=dy, grads=pullback(dy), activation="tanh")
    options = registered(ops.conv).bind(x, w, b, activation="tanh").parts()[0][2]
    options["epilogue"] = options["epilogue"]._replace(keep_sums=True)
    y, sums = conv.PRIMITIVES["conv_fprop"].run(x, w, **options)
    close(y, x, w, b, activation="tanh")
    close(sums, x, w, b)
    assert set(first.values()) == {"NCHW"}


def test_what_is_timed_is_the_whole_call_with_its_copies(choices, monkeypatch):
    x, w, b = made(2, 6, 5, 8), made(3, 3, 8, 4), made(4)
    results, layouts = [], []

    def seconds(call):
        results.append(call())
        layouts.append(call.args[0].problem.layout)
        return 1.0

    monkeypatch.setattr(tune, "seconds", seconds)
    with xpconv.autotune(True):
        ops.conv(x, w, b, activation="relu")
    assert set(layouts) == {"NHWC", "NCHW"}
    for y in results:
        close(y, x, w, b, activation="relu")


def test_a_layout_is_kept_on_disk_and_told_of(first, choices, monkeypatch):
    x, w, b = made(2, 6, 5, 8), made(3, 3, 8, 4), made(4)
    ops.conv(x, w, b, activation="relu")
    ((_, choice),) = json.loads(tune.path(0).read_text()).items()
    assert choice.startswith("NCHW eng")
    clear()
    monkeypatch.setattr(tune, "seconds", lambda call: pytest.fail("timed again"))
    first.clear()
    close(ops.conv(x, w, b, activation="relu"), x, w, b, activation="relu")
    assert first == {"fprop": "NCHW"}
    told = xpconv.explain(ops.conv, x, w, b, activation="relu")["cudnn"]
    copies = 4 * (2 * 6 * 5 * 8 + 2 * 4 * 3 * 4)
    assert f"NCHW in one launch between copies from and to NHWC of {copies} B with bias, relu, plan eng" in told
    assert "by measurement" in told
    with xpconv.autotune(False):
        ops.conv(x, w, b, activation="relu")
        assert first == {"fprop": "NHWC"}
        assert "NHWC in one launch with bias, relu" in xpconv.explain(ops.conv, x, w, b, activation="relu")["cudnn"]


def test_a_parameter_keeps_its_weights_turned_for_each_layout(first):
    with xpconv.use_backend("cupy"):
        net = nn.Conv2d(8, 4, 3).initialize()
    x = made(2, 6, 5, 8)
    for tuned, layout in ((True, "NCHW"), (False, "NHWC"), (True, "NCHW")):
        with xpconv.autotune(tuned):
            close(net(x), x, net.weight.value, net.bias.value)
        assert first == {"fprop": layout}
    assert len(net.weight.packed) == 2


def test_a_captured_graph_turns_what_it_is_given_at_each_replay(first):
    with xpconv.use_backend("cupy"):
        net = nn.Conv2d(8, 4, 3, activation="relu").initialize()
    x, stream = made(2, 6, 5, 8), cupy.cuda.Stream(non_blocking=True)
    with stream:
        net(x)  # plans, and times them
        stream.begin_capture()
        y = net(x)
        graph = stream.end_capture()
        plans.find.cache_clear()
        for change in (x, net.weight.value):
            change[...] = change * -0.5
            graph.launch()
            close(y, x, net.weight.value, net.bias.value, activation="relu")
    assert first == {"fprop": "NCHW"}


def test_a_graph_that_captured_a_plan_keeps_it_where_another_takes_its_place(first):
    """One that was found, but not timed yet."""
    x, w, stream = made(2, 6, 5, 8), made(3, 3, 8, 4), cupy.cuda.Stream(non_blocking=True)
    plan = plans.find(conv.fprop_problem(x, w, **fprop_options(x, w)))
    with stream:
        conv.library.prepare(0)
        stream.begin_capture()
        ops.conv(x, w)
        stream.end_capture()
        captured = plan.way
        ops.conv(x, w)
    assert plan.way.problem.layout == "NCHW"
    assert captured in plans._captured
