"""What a call that does not fit, or a name that is not there, is answered with."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import xpconv
from xpconv import nn, ops, train

LAYERS = [getattr(nn, name) for name in nn.__all__ if isinstance(getattr(nn, name), type)]
OWN = [nn.Layer, nn.Module, nn.Parallel, nn.Sequential, nn.Parameter, nn.Buffer]  # bases, and what takes any name


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind not in OWN])
def test_every_layer_shows_its_own_signature(kind):
    with pytest.raises(TypeError, match=rf"(?s)^{kind.__name__}: .*\n  {kind.__name__}\("):
        kind(nothing=1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="zeros"),
            r"^Conv2d: got an unexpected keyword argument 'padding_mode'\.\n"
            r"  Conv2d\(in_channels, out_channels, kernel_size, stride=1, .*\)\n  padding_mode: zeros are the default",
        ),
        (lambda: nn.ReLU(inplace=True), r"^ReLU: .*'inplace'\.\n  ReLU\(\)\n  inplace: results are always new"),
        (
            lambda: nn.models.resnet18(pretrained=True),
            r"(?s)^resnet18: .*'pretrained'.*\n  pretrained: exchange\.load_t",
        ),
        (lambda: nn.Flatten(1, 2), r"^Flatten: too many positional arguments\.\n  Flatten\(\)$"),
        (lambda: nn.MaxPool2d(2, return_indices=True, device=0), r"\n  return_indices: .*\n  device: net\.to"),
        (
            lambda: ops.conv(1, 2, None, 1, 1),
            r"^conv: too many positional arguments\.\n  conv\(x, w, b=None, \*, stride=1, .*\)\n"
            r"  options go by name: stride=, padding=, ",
        ),
        (lambda: ops.conv(1, 2, bias=3), r"^conv: got an unexpected keyword argument 'bias'\.\n  conv\(x, w, b=None"),
        (lambda: xpconv.explain(ops.relu, 1, inplace=True), r"^relu: .*'inplace'\.\n  relu\(x\)\n  inplace: "),
        (lambda: xpconv.vjp(ops.conv, 1), r"^conv: missing a required argument: 'w'\.\n  conv\(x, w"),
        (
            lambda: train.fit(nn.ReLU(), 1, epochs=1),
            r"^fit: missing a required.* 'batch_size'\.\n  fit\(net, data, \*, ",
        ),
        (
            lambda: train.fit(nn.ReLU(), 1, 2, epochs=1, batch_size=1),
            r"\n  data is one pair: fit\(net, \(images, labels",
        ),
    ],
)
def test_a_call_that_does_not_fit_is_shown_the_signature(call, said):
    with pytest.raises(TypeError, match=said):
        call()


def test_a_module_that_is_submodule_or_unknown_is_imported_as_ever():
    from xpconv.nn import models

    assert models is nn.models
    with pytest.raises(ImportError, match=r"^cannot import name 'nothing' from 'xpconv\.nn'"):
        from xpconv.nn import nothing  # noqa: F401


@pytest.mark.parametrize("given", [dict, lambda parameters: list(parameters.values())])
@pytest.mark.parametrize("rate", [{}, {"lr": 0.1}])
def test_an_optimizer_takes_no_parameters(given, rate):
    parameters = given(nn.Linear(2, 2).parameters())
    with pytest.raises(TypeError, match=r"(?s)^SGD: takes a learning rate.*given: a \w+ of parameters.*\.step\(net\."):
        train.SGD(parameters, **rate)


def test_errors_from_within_a_call_that_fits_pass_unchanged(monkeypatch):
    def refuse(*args, **kwargs):
        raise TypeError("from within")

    class Fails(nn.Linear):
        pass

    monkeypatch.setattr("xpconv.nn.linear.integer", refuse)
    with pytest.raises(TypeError, match=r"^from within$"):
        Fails(3, 4)


@pytest.mark.parametrize(
    ("package", "name", "nearest"),
    [
        (nn, "BatchNorm2d", r"nn\.BatchNorm"),
        (nn, "Hardswish", r"nn\.HardSwish"),
        (nn, "LPPool2d", r"nn\.LpPool2d"),
        (nn, "ReflectionPad2d", r"nn\.Pad\(1, mode='reflect'\)"),
        (nn, "CrossEntropyLoss", r"ops\.softmax_cross_entropy"),
        (ops, "conv2d", r"ops\.conv"),
        (ops, "interpolate", r"ops\.resize"),
        (nn, "ModuleList", r"list"),
        (train, "CosineAnnealingLR", r"train\.schedule\.Cosine\(\)"),
        (xpconv, "optim", r"xpconv\.train"),
    ],
)
def test_a_name_that_is_pytorchs_leads_to_ours(package, name, nearest):
    assert not hasattr(package, name)
    assert name not in dir(package)
    with pytest.raises(
        AttributeError, match=rf"^{package.__name__}: has no '{name}'\.\n  the nearest here is {nearest}\.$"
    ):
        getattr(package, name)
    with pytest.raises(
        ImportError, match=rf"^{package.__name__}: has no '{name}'\.\n  the nearest here is {nearest}\.$"
    ):
        exec(f"from {package.__name__} import {name}")
    with pytest.raises(AttributeError, match=rf"^module '{package.__name__}' has no attribute 'nothing'$"):
        package.nothing  # noqa: B018


def test_what_is_pointed_to_is_there():
    from xpconv import hints

    for text in hints._NAMES.values():
        eval(text, {"nn": nn, "ops": ops, "train": train, "xpconv": xpconv})


def test_a_network_has_no_modes_and_says_so():
    class Own(nn.Module):
        @property
        def broken(self):
            return np.zeros(1).nothing

    net = nn.Sequential(nn.ReLU())
    for name in ("train", "eval", "forward"):
        assert not hasattr(net, name)
        with pytest.raises(AttributeError, match=r"^Sequential: .*\n  there is no mode to set: net\(x\) is inference"):
            getattr(net, name)
    with pytest.raises(AttributeError, match=r"^Sequential: has no 'cuda'\.\n  net\.to\('cupy'\) moves it\.$"):
        net.cuda()
    with pytest.raises(AttributeError, match=r"^'Sequential' object has no attribute 'nothing'$"):
        net.nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"^'numpy.ndarray' object has no attribute 'nothing'$"):
        Own().broken  # noqa: B018
    assert repr(pickle.loads(pickle.dumps(net))) == repr(copy.deepcopy(net)) == repr(net)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda step: step.zero_grad(), r"^Step: has no 'zero_grad'\.\n  a step forgets gradients itself\.$"),
        (lambda step: step.backward, r"^Step: .*\n  step\(images, targets\) is forward, loss, backward and update"),
        (lambda step: step.lr, r"^Step: has no 'lr'\.\n  the optimizer has it: step\.optimizer\.lr\.$"),
        (lambda step: step.nothing, r"^'Step' object has no attribute 'nothing'$"),
        (lambda step: step.optimizer.zero_grad(), r"^SGD: has no 'zero_grad'\.\n  net\.zero_grad\(\) forgets"),
        (lambda step: setattr(step.optimizer, "learning_rate", 1), r"^SGD: has no 'learning_rate'\.\n  that is lr\.$"),
        (
            lambda step: step.net.predict,
            r"\n  train\.predict\(net, images\) goes batch by batch, train\.Predictor\(net\)",
        ),
        (
            lambda step: step.net.fit,
            r"\n  train\.fit\(net, \(images, labels\), epochs=\.\.\., batch_size=\.\.\.\) trains",
        ),
        (
            lambda step: train.Predictor(step.net).predict,
            r"^Predictor: has no 'predict'\.\n  call it: predictor\(images",
        ),
    ],
)
def test_what_is_asked_of_a_step_and_its_parts_is_done_otherwise(asked, said):
    step = train.Step(nn.Sequential(nn.Linear(2, 2)), train.SGD(0.1))
    with pytest.raises(AttributeError, match=said):
        asked(step)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda net: train.SGD(0.1).step(),
            r"^step: .*'parameters'\.\n  step\(parameters\)\n  net\.parameters\(\) gives",
        ),
        (lambda net: net.freeze(False), r"^freeze: .*\n  freeze\(\)\n  net\.unfreeze\(\) lets them learn again"),
        (lambda net: net.to("float64"), r"^to: the first .*\n  given: 'float64'\n  net\.to\(dtype=\"float64\"\) casts"),
        (lambda net: net.to(np.float64), r"^to: the first argument is a backend\.\n.*\n  net\.to\(dtype=\"float64\"\)"),
    ],
)
def test_arguments_that_other_libraries_take_there(call, said):
    with pytest.raises(TypeError, match=said):
        call(nn.Sequential(nn.Linear(2, 2)))
