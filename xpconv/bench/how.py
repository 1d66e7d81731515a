"""How what a document tells was found, in words, for whoever reads it later."""

from __future__ import annotations

from xpconv.bench.result import OURS, Result
from xpconv.bench.steady import RULE

_HOW = {
    "time": "each side in a process of its own, in turns, each round beginning with another side; medians and "
    "quartiles of all calls but those of the first 20 ms of each turn; a result is dropped before the next call; "
    "packing and dispatch are counted",
    "steady": RULE,
    "forward": "the op alone, with no gradient asked for",
    "backward": "all gradients from dy by a pullback made beforehand, without the forward pass; torch: autograd.grad "
    "with retain_graph; jax: a compiled function that takes the vjp's residuals as arguments",
    "fused": "convolution, bias and ReLU; torch: the convolution, then relu_ in place",
    "step": "forward, loss, backward, SGD with momentum; LeNet without dropout; the same first weights on every side; "
    "xpconv: call by call and, where it can be recorded, replayed as by `train.fit`: the faster of the two",
    "inference": "a whole network forward, its biases, norms and running statistics drawn as of one that has learned; "
    "LeNet without dropout; xpconv: call by call and, where it can be recorded, replayed by `train.Predictor`: the "
    "faster of the two; torch: the module in eval mode under inference_mode, call by call",
    "torch": "the better of its two memory formats",
    "jax": "compiled by jit, NHWC, each call waited for",
    "im2col": "windows copied into rows in NumPy, and one product",
    "flops": "by the definition, two for each multiply-add, twice as many backward; some algorithms need fewer",
    "fraction_of_peak": "the least time that the ceiling allows (arithmetic, or each array moved once) over the time",
    "error": "largest over the judged parts, in units of the permitted error (xpconv.parity.bounds); steps: of the "
    "losses of the first two steps against float64, relative, in units of 1e-4 in float32, 1e-2 in TF32, 2e-2 in "
    "float16, 5e-2 in bfloat16; of ResNet-50 (eight images at most) and MobileNetV2, 1e-2 in float32 and TF32, 5e-2 in "
    "half precision; inference: of the outputs for the first and the last image against float64, layer by layer, "
    "relative to the largest of the image, in units of 1e-5 in float32, 1e-2 in TF32 and float16, "
    "5e-2 in bfloat16, 2e-14 in float64",
    "memory": "growth of the peak resident memory by one forward and backward in a process of its own, inputs apart; "
    "what was freed before has gone back to the system",
    "ratio": "the peer's median over xpconv's",
}

_ON_A_GPU = {
    "time": "each side in a process of its own, in turns, each round beginning with another side; batches of calls of "
    "4 ms or more between two events on the device, which is idle when a batch begins; medians and quartiles of "
    "batches; results are fresh; packing and dispatch are counted; inputs stay where the calls before left them",
    "host_us": "median time of the host for each call of a batch, until the call came back",
    "memory": "by one forward and backward, or one step call by call, inputs and weights apart; xpconv: what CuPy's "
    "pool took from the device; torch: the most that was allocated at a time",
    "torch": "the better of its two memory formats; cudnn.benchmark on; TF32 on under 'fast' and off under 'ieee'",
    "torch-graph": "the whole step captured in a CUDA graph after three warm-up steps; the better memory format",
    "launch": "a kernel launched by CuPy's RawKernel, its result made beforehand",
    "ceiling": "the larger of what xpconv's and the peers' own libraries reach",
}


def of(result: Result) -> dict[str, str]:
    """What is said of this result."""
    gpu = "gpu" in result.facts
    texts = {**_HOW, **(_ON_A_GPU if gpu else {})}
    used = {
        "time",
        "steady",
        "flops",
        "fraction_of_peak",
        "error",
        "ratio",
        *("inference" if row.case.layer.op == "inference" else row.case.direction for row in result.rows),
    }
    used |= {OURS, *result.plan.peers} | ({"memory"} if result.plan.memory else set())
    used |= {"host_us", "ceiling"} if gpu else set()
    return {name: text for name, text in texts.items() if name in used}
