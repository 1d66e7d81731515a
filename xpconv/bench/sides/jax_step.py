"""A training step in JAX: one compiled function, whose parameters, momenta and statistics are donated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.bench.candidate import NotOfferedError
from xpconv.bench.case import Case
from xpconv.bench.networks import MOMENTUM, rate
from xpconv.bench.sides.jax import batch_norm, conv, cross_entropy, max_pool

Values = dict[str, Any]


def make(case: Case, arrays: dict[str, np.ndarray]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The step, and what `truth` judges: the losses of the first two."""
    import jax
    import jax.numpy as jnp

    networks = {"lenet": _lenet, "resnet20": _resnet20}
    if case.layer.options["model"] not in networks:
        raise NotOfferedError(f"only steps of {' and '.join(networks)}")
    network, learning = networks[case.layer.options["model"]], rate(case.layer.options["model"])
    values = {name: jnp.asarray(x) for name, x in arrays.items() if name not in ("x", "labels")}
    statistics = {name: values.pop(name) for name in list(values) if ".running_" in name}
    x, labels = jnp.asarray(arrays["x"]), jnp.asarray(arrays["labels"])

    def step(values: Values, momenta: Values, statistics: Values, x: Any, labels: Any) -> Any:
        def loss_of(values: Values) -> Any:
            moved = dict(statistics)
            return cross_entropy(network(values, x, moved), labels), moved

        (loss, moved), grads = jax.value_and_grad(loss_of, has_aux=True)(values)
        momenta = {name: MOMENTUM * momenta[name] + grad for name, grad in grads.items()}
        return {name: value - learning * momenta[name] for name, value in values.items()}, momenta, moved, loss

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    state = (values, {name: jnp.zeros_like(value) for name, value in values.items()}, statistics)

    def call() -> Any:
        nonlocal state
        *kept, loss = compiled(*state, x, labels)
        state = (kept[0], kept[1], kept[2])
        return loss, state

    return call, lambda: {"losses": np.stack([np.asarray(call()[0]) for _ in range(2)])}


def _lenet(values: Values, x: Any, statistics: Values) -> Any:
    import jax

    for i in (1, 2):
        x = conv(x, values[f"conv{i}.weight"], padding=1) + values[f"conv{i}.bias"]
        x = max_pool(jax.nn.relu(x), 2)
    x = x.reshape(x.shape[0], -1)
    x = jax.nn.relu(x @ values["fc1.weight"] + values["fc1.bias"])
    return x @ values["fc2.weight"] + values["fc2.bias"]


def _resnet20(values: Values, x: Any, statistics: Values) -> Any:
    import jax
    import jax.numpy as jnp

    def norm(name: str, x: Any) -> Any:
        y, mean, var = batch_norm(x, values[f"{name}.weight"], values[f"{name}.bias"])
        count = x.size // x.shape[-1]
        for kind, batch in (("mean", mean), ("var", var * (count / (count - 1)))):
            running = statistics[f"{name}.running_{kind}"]
            statistics[f"{name}.running_{kind}"] = running + 0.1 * (jax.lax.stop_gradient(batch) - running)
        return y

    x = jax.nn.relu(norm("bn1", conv(x, values["conv1.weight"], padding=1)))
    for stage in (1, 2, 3):
        for block in range(3):
            name, stride = f"layer{stage}.{block}.body", 2 if stage > 1 and not block else 1
            y = jax.nn.relu(norm(f"{name}.bn1", conv(x, values[f"{name}.conv1.weight"], stride, padding=1)))
            y = norm(f"{name}.bn2", conv(y, values[f"{name}.conv2.weight"], padding=1))
            shortcut = x[:, ::stride, ::stride]
            more = y.shape[-1] - x.shape[-1]
            x = jax.nn.relu(y + jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, more))))
    return x.mean(axis=(1, 2)) @ values["fc.weight"] + values["fc.bias"]
