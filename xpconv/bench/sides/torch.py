"""PyTorch's side, in each of its two memory formats; on a GPU where xpconv's backend is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.bench.candidate import Candidate, gradients
from xpconv.bench.case import ACTIVATIONS, Case
from xpconv.bench.devices import Device
from xpconv.bench.sides import ours
from xpconv.settings import current


def version() -> dict[str, str]:
    """Versions of what does the work."""
    import torch

    found = {"torch": torch.__version__}
    if place().startswith("cuda"):
        found |= {"torch's cuda": str(torch.version.cuda), "torch's cudnn": str(torch.backends.cudnn.version())}
    return found


def make(case: Case, arrays: dict[str, np.ndarray]) -> list[Candidate]:
    """Each memory format once; of what is no image there is only one."""
    configure()
    if case.layer.op == "update":
        from xpconv.bench.sides import torch_step

        return torch_step.updates_of(case, arrays)
    return [_candidate(case, arrays, name, laid_out) for name, laid_out in formats(case).items()]


def configure() -> None:
    """Threads and precision as they are in force; cuDNN tries its algorithms and takes the fastest."""
    import torch

    if current().num_threads:
        torch.set_num_threads(current().num_threads)
    fast = current().precision == "fast"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
    torch.backends.cudnn.benchmark = True


def formats(case: Case) -> dict[str, Any]:
    """The memory formats by name."""
    import torch

    found = {"channels first": torch.contiguous_format}
    last = {3: torch.preserve_format, 4: torch.channels_last, 5: torch.channels_last_3d}  # 3: as NumPy's array has it
    rank = len(case.layer.x) + 1
    if rank in last:
        found["channels last"] = last[rank]
    return found


def place() -> str:
    """Where xpconv's arrays are, so are PyTorch's; beside an emulated GPU, on the host."""
    name, _, number = current().backend.partition(":")
    if name == "torch":
        return number or "cpu"
    return "cpu" if name != "cupy" or ours.device().emulated else f"cuda:{number or 0}"


def device() -> Device:
    """The host, or the GPU."""
    if not place().startswith("cuda"):
        return Device()
    from xpconv.bench.devices.torch import TorchDevice

    configure()
    return TorchDevice(place())


def wait(result: Any) -> None:
    """Return when the device has done all that was asked of it."""
    import torch

    if place().startswith("cuda"):
        torch.cuda.synchronize(place())


def _candidate(case: Case, arrays: dict[str, np.ndarray], name: str, laid_out: Any) -> Candidate:
    import torch

    if case.layer.op == "step":
        from xpconv.bench.sides import torch_step

        return Candidate(name, *torch_step.make(case, arrays, laid_out), wait)
    if case.layer.op == "inference":
        from xpconv.bench.sides import torch_step

        return torch_step.inference(case, arrays, name, laid_out)
    tensors = {key: placed(key, x, laid_out, case.dtype) for key, x in arrays.items()}
    dy = tensors.pop("dy")
    run, wanted = _function(case), [t for t in tensors.values() if _has_gradient(t)]
    forward = case.direction in ("forward", "fused")
    grads_of = [] if forward else wanted

    def answers() -> dict[str, np.ndarray]:
        result = call()
        if forward:
            return {"y": on_host(result)}
        shown = gradients(case, result, on_host)
        return {**shown, **({"dw": _host_weights(case, result[1])} if "dw" in shown else {})}

    for tensor in grads_of:
        tensor.requires_grad_()

    def both() -> Any:
        return torch.autograd.grad(run(tensors), wanted, dy)

    if forward:

        def call() -> Any:
            with torch.no_grad():
                return run(tensors)

    elif case.direction == "both":
        call = both
    else:
        y = run(tensors)

        def call() -> Any:
            return torch.autograd.grad(y, wanted, dy, retain_graph=True)

    return Candidate(name, call, answers, wait)


def _function(case: Case) -> Callable[[dict[str, Any]], Any]:
    """The op by PyTorch's own name."""
    from torch.nn import functional

    op, o = case.layer.op, dict(case.layer.options)
    if op == "conv":
        conv = (functional.conv1d, functional.conv2d, functional.conv3d)[len(case.layer.x) - 2]
        if case.direction == "fused":
            return lambda t: conv(t["x"], t["w"], t["b"], **o).relu_()
        return lambda t: conv(t["x"], t["w"], t.get("b"), **o)
    if op in ACTIVATIONS:
        return lambda t: getattr(functional, op)(t["x"])
    if op == "max_pool":
        return lambda t: functional.max_pool2d(t["x"], **o)
    if op == "global_avg_pool":
        return lambda t: t["x"].mean(dim=tuple(range(2, t["x"].ndim)), keepdim=True)
    if op == "conv_transpose":
        return lambda t: functional.conv_transpose2d(t["x"], t["w"], t["b"], **o)
    if op == "resize":
        return lambda t: functional.interpolate(t["x"], o["output_size"], mode=o["mode"])
    if op == "pad":
        return lambda t: functional.pad(t["x"], (o["padding"],) * 4, mode=o["mode"])
    if op == "local_response_norm":
        return lambda t: functional.local_response_norm(t["x"], **o)
    if op in NORMS:
        return NORMS[op](functional, o)
    if op == "prelu":
        return lambda t: functional.prelu(t["x"], t["slope"])
    if op == "linear":
        return lambda t: functional.linear(t["x"], t["w"], t["b"])
    return lambda t: functional.cross_entropy(t["logits"], t["labels"])


# By the op, what makes the function of `torch.nn.functional` and the options; a layer norm is over the channels.
NORMS: dict[str, Callable[[Any, dict[str, Any]], Callable[[dict[str, Any]], Any]]] = {
    "batch_norm": lambda f, o: lambda t: f.batch_norm(t["x"], None, None, t["gamma"], t["beta"], training=True),
    "instance_norm": lambda f, o: lambda t: f.instance_norm(t["x"], weight=t["gamma"], bias=t["beta"]),
    "group_norm": lambda f, o: lambda t: f.group_norm(t["x"], o["num_groups"], t["gamma"], t["beta"]),
    "layer_norm": lambda f, o: (
        lambda t: f.layer_norm(t["x"].movedim(1, -1), t["gamma"].shape, t["gamma"], t["beta"]).movedim(-1, 1)
    ),
}


def placed(name: str, x: np.ndarray, laid_out: Any, dtype: str) -> Any:
    """A tensor in PyTorch's order of axes and the memory format, floating-point values in ``dtype``."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(x)).reshape(x.shape)
    if name == "w":
        tensor = tensor.T if x.ndim == 2 else tensor.permute(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))
    elif x.ndim > 2:
        tensor = tensor.permute(0, x.ndim - 1, *range(1, x.ndim - 1))
    kept = laid_out if tensor.ndim > 2 else torch.contiguous_format
    wanted = getattr(torch, dtype) if _has_gradient(tensor) else tensor.dtype
    return tensor.to(place()).to(wanted).clone(memory_format=kept)


def _has_gradient(tensor: Any) -> bool:
    return bool(tensor.is_floating_point() or tensor.is_complex())


def on_host(tensor: Any) -> np.ndarray:
    """An activation or a vector in xpconv's layout."""
    tensor = _cpu(tensor)
    return (tensor.movedim(1, -1) if tensor.ndim > 2 else tensor).numpy()


def _host_weights(case: Case, w: Any) -> np.ndarray:
    w = _cpu(w)
    return w.T.numpy() if w.ndim == 2 else w.permute(*range(2, w.ndim), 1, 0).numpy()


def _cpu(tensor: Any) -> Any:
    """On the host, half precision in float32, since NumPy lacks bfloat16."""
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.element_size() == 2 else tensor
