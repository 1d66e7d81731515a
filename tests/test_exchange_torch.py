"""Ops as functions that PyTorch differentiates."""

from __future__ import annotations

import pytest

from xpconv import exchange, ops

torch = pytest.importorskip("torch")


def normal(*shape, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64, **options)


@pytest.mark.parametrize(
    ("op", "shapes", "options"),
    [
        (ops.conv, [(1, 5, 5, 2), (3, 3, 2, 3), (3,)], {"padding": 1, "activation": "silu"}),
        (ops.conv_transpose, [(1, 3, 3, 2), (2, 2, 3, 2)], {"stride": 2}),
        (ops.max_pool, [(1, 4, 4, 2)], {"kernel_size": 2}),
        (ops.batch_norm, [(6, 3), (3,), (3,)], {}),
        (ops.gelu, [(4, 3)], {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_gradcheck(op, shapes, options):
    tensors = [normal(*shape).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(lambda *xs: exchange.torch.function(op)(*xs, **options), tensors)


def test_it_sits_in_a_model_and_shares_memory():
    conv = exchange.torch.function(ops.conv)
    x, w = normal(2, 4, 4, 3), normal(3, 3, 3, 5).requires_grad_()
    residual = normal(2, 4, 4, 5).requires_grad_()
    y = conv(x, w, padding="same", residual=residual)
    y.square().sum().backward()
    assert x.grad is None
    torch.testing.assert_close(residual.grad, 2 * y.detach())
    expected = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(y, expected + residual)


def test_further_results_and_integer_tensors_have_no_gradient():
    x = normal(1, 4, 4, 1).requires_grad_()
    y, indices = exchange.torch.function(ops.max_pool)(x, 2, return_indices=True)
    assert indices.dtype == torch.int64
    assert not indices.requires_grad
    y.sum().backward()
    assert x.grad.sum() == 4
    logits = normal(3, 4).requires_grad_()
    exchange.torch.function(ops.softmax_cross_entropy)(logits, torch.tensor([0, 1, 3])).backward()
    torch.testing.assert_close(logits.grad.sum(), torch.tensor(0.0, dtype=torch.float64))


def test_bfloat16_keeps_its_dtype():
    x = normal(3).to(torch.bfloat16).requires_grad_()
    y = exchange.torch.function(ops.tanh)(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
