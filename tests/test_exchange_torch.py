"""Ops as functions that PyTorch differentiates."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from xpconv import exchange, ops
from xpconv.parity import CASES

torch = pytest.importorskip("torch")
function = exchange.torch.function


def normal(*shape, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64, **options)


def floating(x):
    return x.dtype.kind in "fc"


def differentiable(sample):
    """Whether a sample has something to differentiate, few enough numbers to try, and no ties, where it is not."""
    arrays = [x for x in sample.draw().values() if x is not None]
    return any(map(floating, arrays)) and all(0 < x.size < 700 for x in arrays) and not sample.name.startswith("ties")


SAMPLES = [
    pytest.param(case.op, sample, id=f"{case.name}-{sample.name}")
    for case in CASES
    for sample in case.samples
    if differentiable(sample)
]


def test_every_op_is_checked():
    assert {parameters.values[0].__name__ for parameters in SAMPLES} == set(ops.__all__)


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_gradcheck(op, sample):
    arrays = {name: None if x is None else torch.tensor(x) for name, x in sample.draw().items()}
    names = [name for name, x in arrays.items() if x is not None and (x.is_floating_point() or x.is_complex())]

    def first(*tensors):
        y = function(op)(**{**arrays, **dict(zip(names, tensors, strict=True))}, **sample.options)
        return y[0] if isinstance(y, tuple) else y

    assert torch.autograd.gradcheck(first, [arrays[name].requires_grad_() for name in names], fast_mode=True)


class Block(torch.nn.Module):
    """A module of PyTorch's whose convolution is xpconv's, in its layout."""

    def __init__(self, channels, out):
        super().__init__()
        self.weight = torch.nn.Parameter(normal(3, 3, channels, out))
        self.bias = torch.nn.Parameter(normal(out))

    def forward(self, x):
        return function(ops.conv)(x, self.weight, self.bias, padding=1, activation="relu")


def test_it_sits_in_a_model():
    model = torch.nn.Sequential(Block(3, 5), torch.nn.Flatten(), torch.nn.Linear(80, 2, dtype=torch.float64))
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    x, losses = normal(2, 4, 4, 3), []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
    block, nchw = model[0], x.permute(0, 3, 1, 2)
    expected = torch.nn.functional.conv2d(nchw, block.weight.permute(3, 2, 0, 1), block.bias, padding=1).relu()
    torch.testing.assert_close(block(x), expected.permute(0, 2, 3, 1))


def test_a_residual_gets_its_gradient_and_what_needs_none_gets_none():
    x, w = normal(2, 4, 4, 3), normal(3, 3, 3, 5).requires_grad_()
    residual = normal(2, 4, 4, 5).requires_grad_()
    y = function(ops.conv)(x, w, padding="same", residual=residual)
    y.square().sum().backward()
    assert x.grad is None
    torch.testing.assert_close(residual.grad, 2 * y.detach())


def test_arrays_that_are_none_may_stand_before_others():
    x, beta = normal(6, 3).requires_grad_(), normal(3).requires_grad_()
    function(ops.batch_norm)(x, None, beta).sum().backward()
    torch.testing.assert_close(beta.grad, torch.full((3,), 6.0, dtype=torch.float64))


def test_memory_is_shared_both_ways(monkeypatch):
    seen = []

    def run(x, *args, **kwargs):
        seen.append(x)
        return x

    monkeypatch.setattr(exchange.torch._Call, "value", lambda call, arrays: run(*arrays))
    x = torch.zeros(2, 3)
    y = function(ops.relu)(x)
    assert isinstance(seen[0], np.ndarray)
    seen[0][0, 0] = 5
    assert x[0, 0] == y[0, 0] == 5


def test_tensors_on_a_gpu_are_lent_to_cupy_on_torchs_stream(monkeypatch):
    """What is asked of both libraries, as far as that shows without a GPU: no tensor of one can be made here."""
    asked = []

    class Block:
        def __init__(self, *what):
            self.what = what

        def __enter__(self):
            asked.append(("in", *self.what))

        def __exit__(self, *error):
            asked.append(("out", *self.what))

    class Tensor:
        device = torch.device("cuda:1")
        detach = resolve_conj = resolve_neg = lambda self: self

    class Cupy:
        class cuda:  # noqa: N801
            Device = staticmethod(lambda index: Block("device", index))

            class Stream:
                from_external = staticmethod(lambda stream: Block("stream", *stream.__cuda_stream__()))

        from_dlpack = staticmethod(lambda x: ("lent", x))

    class Stream:
        cuda_stream = 77

    tensor = Tensor()
    monkeypatch.setattr(exchange.torch, "_cupy", lambda: Cupy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream)
    assert exchange.torch._lent(tensor) == ("lent", tensor)
    with exchange.torch._stream_of(tensor):
        asked.append("work")
    blocks = [("device", 1), ("stream", 0, 77)]
    assert asked == [*(("in", *b) for b in blocks), "work", *(("out", *b) for b in reversed(blocks))]
    monkeypatch.setattr(exchange.torch, "_cupy", lambda: None)
    assert exchange.torch._lent(tensor) is tensor


def test_further_results_and_integer_tensors_have_no_gradient():
    x = normal(1, 4, 4, 1).requires_grad_()
    y, indices = function(ops.max_pool)(x, 2, return_indices=True)
    assert indices.dtype == torch.int64
    assert not indices.requires_grad
    y.sum().backward()
    assert x.grad.sum() == 4
    logits = normal(3, 4).requires_grad_()
    function(ops.softmax_cross_entropy)(logits, torch.tensor([0, 1, 3])).backward()
    torch.testing.assert_close(logits.grad.sum(), torch.tensor(0.0, dtype=torch.float64))


def test_tensors_of_any_strides():
    x, w = normal(2, 3, 6, 6), normal(5, 3, 3, 3)
    ours = function(ops.conv)(x.permute(0, 2, 3, 1), w.permute(2, 3, 1, 0))[:, ::2]
    torch.testing.assert_close(ours.permute(0, 3, 1, 2), torch.nn.functional.conv2d(x, w)[:, :, ::2])
    wide = normal(3, 1).expand(3, 4).requires_grad_()
    function(ops.tanh)(wide).sum().backward()  # whose dy is one number with strides of 0
    torch.testing.assert_close(wide.grad, 1 - wide.detach().tanh() ** 2)
    z = torch.complex(normal(2, 2), normal(2, 2))
    torch.testing.assert_close(function(ops.linear)(z.conj(), z.mT.conj()), z.conj() @ z.mT.conj())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_are_kept(dtype):
    x = normal(3).to(getattr(torch, dtype)).requires_grad_()
    y = function(ops.tanh)(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == x.dtype


def test_where_no_gradient_is_wanted_nothing_is_kept():
    x = normal(2, 3).requires_grad_()
    with torch.no_grad():
        assert not function(ops.relu)(x).requires_grad
    with torch.inference_mode():
        assert function(ops.relu)(x).is_inference()
    assert function(ops.relu)(x.detach()).grad_fn is None
    y = function(ops.relu)(x)
    assert y.requires_grad
    node = weakref.ref(y.grad_fn)
    del y
    gc.collect()
    assert node() is None


def test_backward_twice_as_far_as_torch_allows_it():
    x = normal(2, 3).requires_grad_()
    y = function(ops.tanh)(x).sum()
    y.backward(retain_graph=True)
    first = x.grad.clone()
    y.backward()
    torch.testing.assert_close(x.grad, 2 * first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_the_backward_pass_cannot_be_differentiated():
    x = normal(2, 3).requires_grad_()
    (grad,) = torch.autograd.grad(function(ops.tanh)(x).sum(), x, create_graph=True)
    torch.testing.assert_close(grad, 1 - x.detach().tanh() ** 2)
    with pytest.raises(RuntimeError, match=r"gradient of an op of xpconv cannot itself be differentiated"):
        (grad.square().sum() + x.sum()).backward()


def test_changes_in_place_are_noticed():
    x, w = normal(1, 4, 4, 2), normal(2, 2, 2, 2).requires_grad_()
    y = function(ops.conv)(x, w)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = function(ops.tanh)(w)
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = function(ops.conv)(x, w, activation="relu")
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_rectifier_in_place_may_follow_what_does_not_need_its_result():
    x, w = normal(1, 4, 4, 2), normal(2, 2, 2, 2).requires_grad_()
    torch.nn.functional.relu(function(ops.conv)(x, w), inplace=True).sum().backward()
    grad, w.grad = w.grad, None
    torch.nn.functional.relu(function(ops.conv)(x, w)).sum().backward()
    torch.testing.assert_close(grad, w.grad)


@pytest.mark.parametrize("op", sorted(exchange.torch._FREE))
def test_ops_that_are_said_not_to_need_their_result_do_not(op):
    """Changing y behind PyTorch's back changes no gradient."""
    for parameters in SAMPLES:
        known, sample = parameters.values
        if known.__name__ != op or sample.options.get("activation"):
            continue
        grads = []
        for spoil in (False, True):
            arrays = {name: None if x is None else torch.tensor(x) for name, x in sample.draw().items()}
            tensors = [x.requires_grad_() for x in arrays.values() if x is not None and x.is_floating_point()]
            if not tensors:
                break
            y = function(known)(**arrays, **sample.options)
            y = y[0] if isinstance(y, tuple) else y
            dy = torch.ones_like(y)
            if spoil:
                y.detach().numpy()[...] = 1e9
            y.backward(dy)
            grads.append([x.grad for x in tensors])
        for clean, spoiled in zip(*grads, strict=True) if grads else ():
            torch.testing.assert_close(spoiled, clean, rtol=0, atol=0)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"conv: w is a numpy\.ndarray, not a torch tensor") as error:
        function(ops.conv)(normal(1, 4, 4, 2), np.ones((2, 2, 2, 2)))
    assert "ops.conv" in str(error.value)
    with pytest.raises(TypeError):
        function(len)
