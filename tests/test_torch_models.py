"""Every model beside its twin in PyTorch, weights handed over by torchvision's names."""

from __future__ import annotations

import numpy as np
import pytest

from xpconv import exchange, nn, use_engine

torch = pytest.importorskip("torch")

from torch_nets import CLASSES, PAIRS, PIXELS, randomized  # noqa: E402

# The deepest and widest are of the same parts as others here: their names and sizes are compared, not their answers.
QUICK = [name for name in PAIRS if name not in ("resnet34", "resnet101", "vgg16")]


def pair(name, dtype="float64"):
    make, options = PAIRS[name]
    theirs = randomized(make()).to(getattr(torch, dtype)).eval()
    ours = getattr(nn.models, name)(num_classes=CLASSES, **options)
    assert exchange.load_torch(ours, theirs.state_dict()) == ([], [])
    return theirs, ours


def inputs(dtype, n=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, PIXELS, PIXELS, 3)).astype(dtype)
    return x, rng.normal(size=(n, CLASSES)).astype(dtype)


def error(got, expected):
    """The largest difference, in units of the largest number expected."""
    return float(np.max(np.abs(got - expected)) / np.max(np.abs(expected)))


def test_every_model_has_a_twin():
    assert PAIRS.keys() == nn.models.MODELS.keys()


@pytest.mark.parametrize("name", QUICK)
def test_outputs_and_gradients_are_those_of_torch(name):
    """In float64, which tells a wrong weight from rounding; on the engine that has nothing to compile for it."""
    with use_engine("portable"):
        check_outputs_and_gradients(*pair(name))


def check_outputs_and_gradients(theirs, ours):
    x, dy = inputs("float64")
    t = torch.tensor(exchange.to_nchw(x)).requires_grad_()
    expected = theirs(t)
    expected.backward(torch.tensor(dy))
    y, pullback = ours.vjp(x, training=False)
    dx = pullback(dy)
    assert error(y, expected.detach().numpy()) < 1e-12
    assert error(dx, exchange.to_nhwc(t.grad.numpy())) < 1e-11
    grads = {name: parameter.grad for name, parameter in ours.parameters().items()}
    exchange.load_torch(ours, {name: p.grad for name, p in theirs.named_parameters()}, strict=False)
    for key, parameter in ours.parameters().items():
        assert error(grads[key], parameter.value) < 1e-10, key


@pytest.mark.parametrize("name", QUICK)
def test_float32_is_as_near_to_the_truth_as_torch(name):
    """Within four times of what PyTorch's own float32 is off, both measured from float64."""
    exact, _ = pair(name)
    theirs, ours = pair(name, "float32")
    x, _ = inputs("float32")
    with torch.no_grad():
        truth = exact(torch.tensor(exchange.to_nchw(x.astype("float64")))).numpy()
        theirs_off = error(theirs(torch.tensor(exchange.to_nchw(x))).numpy(), truth)
    assert error(ours(x), truth) <= max(4 * theirs_off, 1e-6)


def test_training_is_that_of_torch():
    theirs, ours = pair("resnet20")
    theirs.train()
    x, dy = inputs("float64", n=3)
    t = torch.tensor(exchange.to_nchw(x)).requires_grad_()
    expected = theirs(t)
    expected.backward(torch.tensor(dy))
    y, pullback = ours.vjp(x)
    assert error(y, expected.detach().numpy()) < 1e-12
    assert error(pullback(dy), exchange.to_nhwc(t.grad.numpy())) < 1e-10
    for name, value in exchange.to_torch_state(ours).items():
        torch.testing.assert_close(value, theirs.state_dict()[name])


@pytest.mark.parametrize("name", PAIRS)
def test_names_and_shapes_are_those_of_torch(name):
    make, options = PAIRS[name]
    with torch.device("meta"):
        theirs = make()
    ours = getattr(nn.models, name)(num_classes=CLASSES, in_channels=3, **options)
    shapes = {k: tuple(v.shape) for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    if name == "lenet":
        ours.fc1 = nn.Linear(64 * (PIXELS // 4) ** 2, 128, activation="relu")
    found = {k: tuple(v.shape) for k, v in exchange.to_torch_state(ours.initialize()).items()}
    assert found == shapes


@pytest.mark.parametrize("name", ["lenet", "resnet20", "mobilenet_v2"])
def test_the_way_back(name, tmp_path):
    theirs, ours = pair(name, "float32")
    again = PAIRS[name][0]().eval()
    again.load_state_dict(exchange.to_torch_state(ours))
    x = torch.tensor(exchange.to_nchw(inputs("float32")[0]))
    with torch.no_grad():
        torch.testing.assert_close(again(x), theirs(x), rtol=0, atol=0)
    exchange.save_torch(ours, tmp_path / "w.safetensors")
    from safetensors.torch import load_file

    for key, value in load_file(tmp_path / "w.safetensors").items():
        torch.testing.assert_close(value, theirs.state_dict()[key], rtol=0, atol=0)
