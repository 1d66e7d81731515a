"""What no CUDA graph can hold is told once, and trained all the same.

Run with `PYTHONPATH=tests/emulated`, where a captured stream records and its graph runs, or on a GPU; elsewhere these
are reported as skipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recorded import network, same_bits, trained  # noqa: F401 - a fixture

import xpconv
from xpconv import nn, train

cupy = pytest.importorskip("cupy")


class Stubborn(nn.Module):
    capturable = False

    def vjp(self, x, training=True, needs_input=True):
        return x, lambda dy: dy


class Looking(nn.Module):
    def vjp(self, x, training=True, needs_input=True):
        assert float(x.sum()) != 0.5
        return x, lambda dy: dy


class Uploading(nn.Module):
    def vjp(self, x, training=True, needs_input=True):
        y = x + cupy.asarray(np.zeros(x.shape[1:], "float32"))
        return y, lambda dy: dy


class Own(train.SGD):
    def change(self, value, grad, slots, rate, t):
        return rate * grad


REFUSED = {
    "a layer says no": ({"net": lambda: [Stubborn()]}, "the layer Stubborn '0' says"),
    "a layer looks": ({"net": lambda: [Looking()]}, "captur"),
    "a layer moves data": ({"net": lambda: [Uploading()]}, "captur"),
    "an optimizer of one's own": ({"optimizer": lambda: Own(0.1)}, "no engine updates these parameters by Own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_recorded_is_told_once_and_trained_all_the_same(case):
    made, said = REFUSED[case]

    def options() -> dict[str, Any]:
        extra = made["net"]() if "net" in made else []
        with xpconv.use_backend("cupy"):
            net = nn.Sequential(*extra, *network().children().values()).initialize(seed=3)
        return {"net": net, "optimizer": made["optimizer"]() if "optimizer" in made else None}

    plain, net, _ = trained(False, **options())
    tried, again, _ = trained(True, **options())
    assert len(tried.notes) == 1
    assert tried.notes[0].startswith("no CUDA graph: ")
    assert said in tried.notes[0]
    assert plain.losses == tried.losses
    for key, value in net.state_dict().items():
        assert np.array_equal(value.get(), again.state_dict()[key].get()), key


def test_an_error_within_a_recorded_step_is_the_users_and_leaves_the_network_usable():
    class Breaking(nn.Module):
        calls = 0

        def vjp(self, x, training=True, needs_input=True):
            Breaking.calls += training
            if training and Breaking.calls == 3:
                raise KeyboardInterrupt
            return x, lambda dy: dy

    with xpconv.use_backend("cupy"):
        net = nn.Sequential(Breaking(), *network().children().values()).initialize(seed=3)
    optimizer = train.Adam(1e-2)
    with pytest.raises(KeyboardInterrupt):
        trained(True, net, optimizer=optimizer)
    assert (optimizer.steps, optimizer.lr) == (2, 1e-2)
    assert not cupy.cuda.get_current_stream().is_capturing()
    trained(True, net, optimizer=optimizer)
