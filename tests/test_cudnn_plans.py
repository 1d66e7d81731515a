"""What cuDNN plans for our graphs, asked of the library itself, which needs no GPU for that.

Run with `PYTHONPATH=tests/emulated`, where nvidia-cudnn-frontend is installed; elsewhere these are reported as skipped.
"""

from __future__ import annotations

import cudnn_on_host
import pytest

import xpconv
from xpconv import ops
from xpconv.backend import HALVES
from xpconv.dispatch import registered
from xpconv.parity import case_of
from xpconv.window import conv_window

engine = cudnn_on_host.required()
conv, library, plans = engine.conv, engine.library, engine.plans
TYPES, Plan, Problem = engine.graph.TYPES, plans.Plan, engine.problem.Problem
cupy, cudnn = library.cupy, library.cudnn

FUSED = ("relu", "relu6", "silu", "sigmoid", "tanh", "softplus")


def problem(direction="fprop", dtype="float32", shape=(2, 8, 8, 64), outputs=64, groups=1, kernel=3, **changes):
    """A 3×3 convolution with padding 1, or something like it."""
    images, *size, channels = shape
    window = conv_window("conv", tuple(size), (kernel,) * len(size), 1, kernel // 2, 1)
    settings = {"precision": "ieee", "deterministic": False, "workspace_limit": 2**28, "autotune": False, "device": 0}
    fused = {"scale": False, "bias": False, "residual": False, "activation": None, "keep_sums": False}
    rest = {**fused, **settings, **changes}
    return Problem(direction, dtype, images, channels, outputs, groups, window, **rest)


def names_of(asked: Problem, select=(), deselect=()) -> set[str]:
    """Names of the plans that can be built for a problem, among those with, and without, some numeric notes."""
    graph = engine.graph.drawn(asked, library.place(0))
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    ranked = library.backend_graph(graph)
    ranked.select_numeric_notes(list(select))
    ranked.deselect_numeric_notes(list(deselect))
    return {way.name for way in plans._fitting(ranked, asked)}


def parts_of(sample, case, dtype):
    """The convolutions that a call and its gradients ask for, in a dtype."""
    arrays = {name: None if x is None else cupy.asarray(x).astype(dtype) for name, x in sample.draw().items()}
    call = registered(case.op).bind(**arrays, **sample.options)
    return [part for part in call.parts() if part[0] in conv.PRIMITIVES]


REFUSED = {
    # The library counts the windows that fit; ours may be fewer, by what `output_padding` leaves over at dilation 2.
    ("conv_transpose", "dilation"): "refuses",
    ("conv", "empty batch"): "empty arrays",
    ("conv", "empty axis in padding"): "empty arrays",
    ("conv_transpose", "empty batch"): "empty arrays",
}
_COMPLEX = {"float32": "complex64", "float64": "complex128"}


@pytest.mark.parametrize(
    ("card", "dtype"),
    [*(("sm_90", dtype) for dtype in TYPES), ("sm_80", "float16"), ("sm_80", "float32"), ("sm_100", "float16")],
)
def test_every_sample_has_plans_in_every_direction(card, dtype, monkeypatch):
    monkeypatch.setattr(library, "place", lambda device: {"device_property": cudnn_on_host.properties(card)})
    plans.find.cache_clear()
    planned = 0
    for case in map(case_of, ("conv", "conv_transpose")):
        for sample in case.samples:
            kind = _COMPLEX.get(dtype) if sample.name == "complex" else dtype
            if kind is None:
                continue
            for name, arrays, options in parts_of(sample, case, kind):
                primitive = engine.PRIMITIVES[name] if kind == dtype else engine.PRIMITIVES[name].otherwise
                reason = primitive.declines(*arrays, **options)
                if (refusal := REFUSED.get((case.name, sample.name))) is not None:
                    assert refusal in reason, f"{case.name}, {sample.name}, {name}: {reason}"
                    continue
                assert reason is None, f"{case.name}, {sample.name}, {name}: {reason}"
                planned += 1
    plans.find.cache_clear()
    assert planned > 100


PROBLEMS = {"conv_fprop": "fprop_problem", "conv_dgrad": "dgrad_problem", "conv_wgrad": "wgrad_problem"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_sample_has_plans_with_channels_first_too(dtype):
    """With all that the library fuses in NHWC, or where it has that for NHWC alone, with less."""
    planned = 0
    for case in map(case_of, ("conv", "conv_transpose")):
        for sample in case.samples:
            if sample.name == "complex" or (case.name, sample.name) in REFUSED:
                continue
            for name, arrays, options in parts_of(sample, case, dtype):
                asked = conv._found(getattr(engine.problem, PROBLEMS[name])(*arrays, **options)).problem
                _, other = asked.layouts
                ways = list(plans._most_fused(other, library.place(0)))
                less = other.activation in ("silu", "softplus") or (other.direction == "dgrad" and other.bias)
                assert {way.problem == other for way in ways} == {not less}, f"{case.name}, {sample.name}, {name}"
                assert {(way.problem.layout, way.problem.residual) for way in ways} == {("NCHW", False)}
                planned += len(ways)
    assert planned > 100


def test_layouts_are_compared_where_the_library_itself_would_turn_ours():
    def layouts(**changes):
        return [asked.layout for asked in problem(**changes).layouts]

    assert layouts() == layouts(dtype="float64") == layouts(dtype="float64", precision="fast") == ["NHWC", "NCHW"]
    for changes in ({"precision": "fast"}, {"dtype": "float16"}, {"dtype": "bfloat16"}):
        assert layouts(**changes) == ["NHWC"]
    asked = problem(residual=True, activation="relu", keep_sums=True, bias=True)
    assert asked.layouts[1] == problem(bias=True, layout="NCHW")


def test_copies_for_a_layout_count_as_workspace():
    asked = problem(dtype="float64", outputs=32, bias=True, activation="tanh", keep_sums=True, layout="NCHW")
    assert asked.copies == 8 * 2 * 8 * 8 * (64 + 2 * 32)
    least = asked.copies + min(way.workspace for way in plans.ways(asked, library.place(0)))
    for limit, fits in ((least, True), (least - 1, False)):
        assert any(plans.ways(asked._replace(workspace_limit=limit), library.place(0))) == fits


def fusions(dtype):
    """Activation, residual, keep_sums: fewer in half precision, where the library compiles a kernel for each."""
    if dtype in HALVES:
        return [(None, True, False), ("relu", True, True), ("relu6", False, False), ("silu", False, False)]
    return [(a, r, k) for a in (None, *FUSED) for r in (False, True) for k in (False, True) if a or not k]


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_asked_of_one_launch_is_fused(dtype):
    """All of it in half precision and float32; in float64 some activations, but no residual."""
    for activation, residual, keep_sums in fusions(dtype):
        asked = problem(dtype=dtype, bias=True, residual=residual, activation=activation, keep_sums=keep_sums)
        found = plans.find(asked)
        if dtype == "float64" and (residual or activation in ("silu", "softplus")):
            assert isinstance(found, str)
            assert conv._found(asked).problem == asked.alone
        else:
            assert isinstance(found, Plan), f"{activation} {residual} {keep_sums}: {found}"


SCALED = (
    {"shape": (2, 14, 14, 64)},
    {"shape": (2, 14, 14, 64), "outputs": 256, "kernel": 1, "residual": True},
    {"shape": (2, 32, 32, 3), "kernel": 7},
    {"shape": (2, 14, 14, 96), "outputs": 96, "groups": 96, "activation": "relu6"},
    {"shape": (2, 4, 6, 6, 16), "outputs": 16},
)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("card", cudnn_on_host.CARDS)
def test_a_norm_in_half_precision_is_fused_on_every_card(card, dtype, monkeypatch):
    """Multiplied by float32 numbers of each channel: of each kind of layer that norms follow."""
    monkeypatch.setattr(library, "place", lambda device: {"device_property": cudnn_on_host.properties(card)})
    plans.find.cache_clear()
    for changes in SCALED:
        asked = problem(dtype=dtype, **{"scale": True, "bias": True, "activation": "relu", **changes})
        found = plans.find(asked)
        assert isinstance(found, Plan), f"{changes}: {found}"
    plans.find.cache_clear()


@pytest.mark.parametrize("direction", ["fprop", "dgrad", "wgrad"])
def test_ieee_float32_keeps_off_the_matrix_cores(direction):
    """Plans on matrix cores round float32 to TF32: none of them is taken under ieee, and there are some to take."""
    tensor_core = names_of(problem(direction), select=[cudnn.numerical_note.TENSOR_CORE])
    ieee, fast = plans.find(problem(direction)).way, plans.find(problem(direction, precision="fast")).way
    assert tensor_core
    assert ieee.name not in tensor_core
    assert fast.name in tensor_core
    assert names_of(problem(direction), deselect=engine.graph.refused_notes(problem(direction))).isdisjoint(tensor_core)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_ieee_leaves_the_matrix_cores_to_dtypes_that_they_do_not_round(dtype):
    tensor_core = names_of(problem(dtype=dtype), select=[cudnn.numerical_note.TENSOR_CORE])
    assert dtype == "float64" or plans.find(problem(dtype=dtype)).way.name in tensor_core


def test_half_precision_is_never_summed_in_half_precision():
    reduced = names_of(problem("wgrad", "float16"), select=[cudnn.numerical_note.REDUCED_PRECISION_REDUCTION])
    assert reduced
    for precision in ("ieee", "fast"):
        assert plans.find(problem("wgrad", "float16", precision=precision)).way.name not in reduced


@pytest.mark.parametrize("direction", ["dgrad", "wgrad"])
def test_deterministic_plans_carry_no_note_of_the_contrary(direction):
    loose = names_of(problem(direction), select=[cudnn.numerical_note.NONDETERMINISTIC])
    assert loose
    asked = problem(direction, deterministic=True)
    assert isinstance(plans.find(asked), Plan)
    assert names_of(asked, deselect=engine.graph.refused_notes(asked)).isdisjoint(loose)


def test_plans_over_the_workspace_limit_are_not_taken():
    free = plans.find(problem(bias=True)).way
    assert free.workspace > 1
    tight = plans.find(problem(bias=True, workspace_limit=free.workspace - 1)).way
    assert tight.workspace < free.workspace


def test_equal_problems_share_a_plan_and_every_argument_tells_them_apart():
    asked = problem("fprop", bias=True, activation="relu")
    assert plans.find(asked) is plans.find(problem("fprop", bias=True, activation="relu"))
    other = {
        "direction": "wgrad",
        "dtype": "float16",
        "images": 3,
        "channels": 32,
        "outputs": 32,
        "groups": 2,
        "window": conv_window("conv", (8, 8), (3, 3), 2, 1),
        "scale": True,
        "bias": False,
        "residual": True,
        "activation": "tanh",
        "keep_sums": True,
        "precision": "fast",
        "deterministic": True,
        "workspace_limit": 1,
        "autotune": True,
        "device": 1,
        "layout": "NCHW",
    }
    assert set(other) == set(Problem._fields)
    for name, value in other.items():
        assert asked._replace(**{name: value}) != asked


def test_plans_are_bounded():
    assert plans.find.cache_info().maxsize == plans.MOST_PLANS


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        ({"x": (0, 5, 4, 3), "w": (3, 3, 3, 4), "dtype": "float32"}, {}, "empty arrays"),
        ({"x": (2, 5, 4, 3), "w": (3, 3, 3, 4), "dtype": "float16"}, {"activation": "hard_swish"}, "no hard_swish"),
    ],
)
def test_what_it_declines_it_declines_in_words_and_the_chain_goes_on(arrays, options, words):
    dtype = arrays.pop("dtype")
    x, w = (cupy.zeros(shape, dtype=dtype) for shape in arrays.values())
    answers = xpconv.explain(ops.conv, x, w, **options)
    assert words in answers["cudnn"]
    assert any(answer.startswith("chosen: conv_fprop") for name, answer in answers.items() if name != "cudnn")
    with xpconv.use_engine("cudnn"), pytest.raises(xpconv.EngineError, match=words):
        ops.conv(x, w, **options)


def test_the_library_refuses_in_its_own_words():
    x, w = cupy.zeros((1, 4, 5, 2), dtype="float32"), cupy.zeros((3, 2, 3, 2), dtype="float32")
    answers = xpconv.explain(ops.conv_transpose, x, w, dilation=2, output_padding=1)
    assert "refuses it" in answers["cudnn"]
    assert "CUDNN_STATUS" in answers["cudnn"]


def test_explain_names_the_plan_what_is_fused_and_the_workspace():
    x, w, b = (cupy.zeros(shape, dtype="float64") for shape in ((2, 8, 8, 16), (3, 3, 16, 16), (16,)))
    plain = xpconv.explain(ops.conv, x, w, b, padding=1, activation="relu")["cudnn"]
    assert "NHWC in one launch with bias, relu" in plain
    assert "workspace" in plain
    assert "by heuristics" in plain
    parted = xpconv.explain(ops.conv, x, w, b, padding=1, activation="silu", residual=x)["cudnn"]
    assert "with bias, residual, silu after it" in parted


def test_halves_are_declined_rather_than_rounded_twice():
    asked = problem(dtype="float16", bias=True, activation="hard_swish")
    assert asked.dtype in HALVES
    assert isinstance(conv._found(asked), str)
    assert isinstance(conv._found(asked._replace(dtype="float32")), Plan)


def test_volumes_and_grouped_convolutions_are_planned_like_images():
    for changes in ({"shape": (2, 4, 6, 6, 16), "outputs": 16}, {"groups": 4}, {"groups": 64}, {"kernel": 1}):
        for dtype in TYPES:
            for direction in ("fprop", "dgrad", "wgrad"):
                assert isinstance(plans.find(problem(direction, dtype, **changes)), Plan)
