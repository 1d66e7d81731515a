"""Composed networks: gradients, running statistics, dropout, backends, models, summaries."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from nets import BACKENDS, images, on

import xpconv
from xpconv import nn

IMAGES = images(3, 8, 2, "float64")


def everything():
    """Every kind of container, and layers that behave differently in training."""
    body = nn.Sequential(nn.Conv2d(6, 6, 3, padding="same", bias=False), nn.BatchNorm(), nn.SiLU())
    shrinking = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.GroupNorm(2))
    return nn.Sequential(
        stem=nn.Parallel(nn.Conv2d(None, 4, 3, padding="same", activation="tanh"), nn.AvgPool2d(3, 1, 1)),
        block=nn.Residual(body, activation="softplus"),
        drop=nn.Dropout(0.3),
        down=nn.Residual(shrinking, nn.IdentityShortcut(8, 2)),
        up=nn.ConvTranspose2d(8, 3, 2, stride=2),
        act=nn.PReLU(None),
        pool=nn.MaxPool2d(2),
        norm=nn.LayerNorm(),
        same=nn.Identity(),
        flat=nn.Flatten(),
        head=nn.Linear(None, 4),
    )


# -- gradients ---------------------------------------------------------------------------------------------------------


def restarted(net):
    for module in net.modules().values():
        module.restart()
    return net


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_a_composed_network_are_central_differences(training):
    net, x = everything().initialize(seed=1).to(dtype="float64"), IMAGES
    rng = np.random.default_rng(0)
    y, pullback = restarted(net).vjp(x, training=training)
    dy = rng.normal(size=y.shape)
    dx = pullback(dy)

    def loss(at):
        return float(np.sum(dy * restarted(net).vjp(at, training=training)[0]))

    def compare(grad, values, run):
        scale = max(1.0, np.abs(grad).max())
        for cell in rng.choice(values.size, size=min(values.size, 12), replace=False):
            step = np.zeros(values.size)
            step[cell] = 1e-6
            step = step.reshape(values.shape)
            difference = (run(values + step) - run(values - step)) / 2e-6
            assert abs(difference - grad.flat[cell]) < 1e-6 * scale

    compare(dx, x, loss)
    for parameter in net.parameters().values():
        values = parameter.value.copy()

        def at(changed, parameter=parameter):
            parameter.assign(changed)
            return loss(x)

        compare(parameter.grad, values, at)
        parameter.assign(values)


def torch_lenet(torch):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 5, padding=2),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 16, 5, padding=2),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 9, 20),
        torch.nn.ReLU(),
        torch.nn.Linear(20, 10),
    ).double()


def our_lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=2),
        nn.BatchNorm(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 9, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
    )


def ours_of(name, value):
    """A torch parameter or its gradient, in our layout."""
    value = value.detach().numpy()
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and name.startswith("8"):  # its rows follow a Flatten: from (C, H, W) to (H, W, C)
        return value.reshape(20, 16, 3, 3).transpose(2, 3, 1, 0).reshape(16 * 9, 20)
    return value.T


@pytest.mark.parametrize("training", [True, False])
def test_a_network_agrees_with_torch_over_steps(training):
    torch = pytest.importorskip("torch")
    theirs, ours = torch_lenet(torch).train(training), our_lenet()
    state = {name: ours_of(name, value) for name, value in theirs.state_dict().items() if "tracked" not in name}
    ours.load_state_dict(state)
    rng = np.random.default_rng(2)
    for _ in range(3):
        x, dy = rng.normal(size=(5, 12, 12, 1)), rng.normal(size=(5, 10))
        xt = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
        yt = theirs(xt)
        yt.backward(torch.tensor(dy))
        y, pullback = ours.vjp(x, training=training)
        dx = pullback(dy)
        np.testing.assert_allclose(y, yt.detach().numpy(), atol=1e-10)
        np.testing.assert_allclose(dx, xt.grad.numpy().transpose(0, 2, 3, 1), atol=1e-10)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(ours.parameters()[name].grad, ours_of(name, parameter.grad), atol=1e-9)
    for name in ("running_mean", "running_var"):
        expected = theirs[4].state_dict()[name].numpy()
        np.testing.assert_allclose(ours.buffers()[f"4.{name}"].value, expected, atol=1e-12)


def test_dropping_the_pullback_frees_what_it_kept():
    net, x = nn.Sequential(nn.Conv2d(2, 4, 3), nn.SiLU()).initialize(), images(3, 8, 2)
    kept = weakref.ref(x)
    y, pullback = net.vjp(x)
    del x
    gc.collect()
    assert kept() is not None
    del pullback
    gc.collect()
    assert kept() is None
    assert y.shape == (3, 6, 6, 4)


# -- running statistics ------------------------------------------------------------------------------------------------


def test_running_statistics_move_once_a_step_and_only_in_training():
    layer, x = nn.BatchNorm(2).to(dtype="float64").initialize(), IMAGES
    layer(x)
    layer.vjp(x, training=False)
    assert layer.running_mean.version == layer.running_var.version == 1
    y, pullback = layer.vjp(x)
    pullback(y)
    pullback(y)
    assert layer.running_mean.version == layer.running_var.version == 2
    flat = x.reshape(-1, 2)
    np.testing.assert_allclose(layer.running_mean.value, 0.1 * flat.mean(axis=0))
    np.testing.assert_allclose(layer.running_var.value, 0.9 + 0.1 * flat.var(axis=0, ddof=1))


def test_inference_uses_running_statistics_and_its_gradient_takes_them_as_constants():
    layer, x = nn.BatchNorm(2, eps=1e-3), IMAGES
    mean, var = np.array([0.5, -1.0]), np.array([2.0, 0.25])
    scale, shift = np.array([3.0, 0.5]), np.array([1.0, -2.0])
    layer.load_state_dict({"weight": scale, "bias": shift, "running_mean": mean, "running_var": var})
    y, pullback = layer.vjp(x, training=False)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-3) * scale + shift)
    np.testing.assert_allclose(pullback(np.ones_like(y)), np.broadcast_to(scale / np.sqrt(var + 1e-3), x.shape))
    np.testing.assert_array_equal(layer(x), y)


def test_momentum_and_a_norm_without_parameters():
    layer, x = nn.BatchNorm(momentum=1.0, affine=False), IMAGES
    y, _ = layer.vjp(x)
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(layer.running_mean.value, x.mean(axis=(0, 1, 2)))
    assert list(layer.state_dict()) == ["running_mean", "running_var"]


def test_batches_without_a_variance():
    layer = nn.BatchNorm(2).to(dtype="float64").initialize()
    with pytest.raises(ValueError, match="training needs more than one value per channel"):
        layer.vjp(np.zeros((1, 2)))
    y, pullback = layer.vjp(np.zeros((0, 4, 4, 2)))
    assert pullback(y).shape == (0, 4, 4, 2)
    np.testing.assert_array_equal(layer.running_var.value, [1, 1])
    assert layer(np.zeros((1, 2))).shape == (1, 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_its_statistics_in_float32(dtype):
    with on("torch"):
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm()).to(dtype=dtype).initialize()
        x = xpconv.asarray(IMAGES, dtype)
    for _ in range(80):
        y, pullback = net.vjp(x)
    assert str(net(x).dtype) == str(y.dtype) == str(pullback(y).dtype) == f"torch.{dtype}"
    assert str(net[1].running_var.value.dtype) == "torch.float32"
    # By now the running statistics have come all the way to the batch's; in bfloat16 they would stop 2 % short.
    inner = xpconv.to_numpy(net[0](x)).astype("float64").reshape(-1, 4)
    np.testing.assert_allclose(xpconv.to_numpy(net[1].running_var.value), inner.var(axis=0, ddof=1), rtol=4e-3)


# -- dropout -----------------------------------------------------------------------------------------------------------


def test_dropout_draws_anew_each_step_and_the_same_again_from_its_seed():
    net, x = nn.Sequential(a=nn.Dropout(0.5), b=nn.Dropout(0.5)).initialize(seed=1), np.ones((4, 64), dtype="float32")
    first, second = net.vjp(x)[0], net.vjp(x)[0]
    assert not np.array_equal(first, second)
    assert not np.array_equal(net.a.vjp(x)[0] > 0, net.b.vjp(x)[0] > 0)
    np.testing.assert_array_equal(net.initialize(seed=1).vjp(x)[0], first)
    assert not np.array_equal(net.initialize(seed=2).vjp(x)[0], first)


def test_dropout_scales_what_stays_and_its_gradient_alike():
    layer, x = nn.Dropout(0.25), np.ones((100, 100))
    y, pullback = layer.vjp(x)
    assert set(np.unique(y)) == {0.0, 4 / 3}
    assert abs(y.mean() - 1) < 0.03
    np.testing.assert_array_equal(pullback(np.full_like(x, 2.0)), 2 * y)


def test_dropout_is_the_identity_at_inference_and_counts_no_step():
    layer, x = nn.Dropout(0.5).initialize(), IMAGES
    assert layer(x) is x
    y, pullback = layer.vjp(x, training=False)
    assert y is x
    np.testing.assert_array_equal(pullback(2 * x), 2 * x)
    np.testing.assert_array_equal(layer.vjp(x)[0], nn.Dropout(0.5).initialize().vjp(x)[0])


# -- backends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_on_steps_from_the_same_seed(backend):
    host, away = everything().to(dtype="float64").initialize(seed=6), everything().to(dtype="float64")
    with on(backend):
        away.initialize(seed=6)
        x = xpconv.asarray(IMAGES)
        for _ in range(2):
            y, pullback = away.vjp(x)
            dx = pullback(y)
    for _ in range(2):
        y_host, pullback = host.vjp(IMAGES)
        dx_host = pullback(y_host)
    np.testing.assert_allclose(xpconv.to_numpy(y), y_host, atol=1e-11)
    np.testing.assert_allclose(xpconv.to_numpy(dx), dx_host, atol=1e-10)
    np.testing.assert_allclose(xpconv.to_numpy(away(x)), host(IMAGES), atol=1e-11)
    for name, parameter in away.parameters().items():
        np.testing.assert_allclose(xpconv.to_numpy(parameter.grad), host.parameters()[name].grad, atol=1e-9)
    for name, buffer in away.buffers().items():
        np.testing.assert_allclose(xpconv.to_numpy(buffer.value), host.buffers()[name].value, atol=1e-12)


# -- containers --------------------------------------------------------------------------------------------------------


def test_an_empty_batch_passes_through_everything():
    net = everything().initialize()
    y, pullback = net.vjp(images(0, 8, 2))
    assert y.shape == (0, 4)
    assert pullback(y).shape == (0, 8, 8, 2)
    assert all(not np.any(parameter.grad) for parameter in net.parameters().values())


def test_parallel_joins_channels_in_order():
    net = nn.Parallel(one=nn.Identity(), two=nn.MaxPool2d(1), three=nn.Conv2d(None, 3, 1))
    x = IMAGES
    y = net(x)
    assert y.shape == (3, 8, 8, 7)
    np.testing.assert_array_equal(y[..., 2:4], x)
    assert net.vjp(x, needs_input=False)[1](y) is None
    with pytest.raises(
        ValueError, match=r"agree in all axes but the channels.*\n.*\n.*multiples of 2\*\*k: pad or crop"
    ):
        nn.Parallel(nn.Identity(), nn.MaxPool2d(2))(x)


def test_a_shortcut_must_fit_its_body():
    with pytest.raises(ValueError, match="body and shortcut must give the same shape") as error:
        nn.Residual(nn.Conv2d(2, 1, 1))(IMAGES)
    assert "body (3, 8, 8, 1)" in str(error.value)
    with pytest.raises(ValueError, match="activation 'rlu' is not known"):
        nn.Residual(nn.Identity(), activation="rlu")
    with pytest.raises(ValueError, match="x has more channels than the 1 of the output"):
        nn.IdentityShortcut(1)(IMAGES)


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 7, 6, 3), (2, 3, 4, 5, 3)])
def test_the_identity_shortcut_is_a_sum_of_its_cells(shape):
    layer, x = nn.IdentityShortcut(5, stride=2), np.random.default_rng(0).normal(size=shape)
    y, pullback = layer.vjp(x)
    cells = (slice(None), *(slice(None, None, 2),) * (len(shape) - 2))
    np.testing.assert_array_equal(y[..., :3], x[cells])
    assert not np.any(y[..., 3:])
    dy = np.random.default_rng(1).normal(size=y.shape)
    np.testing.assert_allclose(np.sum(dy * y), np.sum(pullback(dy) * x))


@pytest.mark.parametrize("run", ["call", "vjp"])
def test_a_first_input_draws_in_a_residual_block_what_initialize_does(run):
    """By the names that layers have in the whole network: two blocks do not begin alike."""
    x = np.zeros((2, 8, 8, 3), dtype="float32")
    first, made = nn.models.resnet20(), nn.models.resnet20().initialize(seed=0)
    first(x) if run == "call" else first.vjp(x)
    made(x)
    expected = made.parameters()
    for name, parameter in first.parameters().items():
        np.testing.assert_array_equal(parameter.value, expected[name].value, err_msg=name)
