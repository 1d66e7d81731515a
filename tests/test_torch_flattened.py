"""Weights from PyTorch behind a flatten, whose order of features is another: what is known, asked for and told."""

from __future__ import annotations

import numpy as np
import pytest
from torch_weights import net, weights

from xpconv import exchange, nn


def test_a_linear_layer_behind_a_flatten_reads_channels_last():
    ours = net()
    given = weights()
    assert exchange.load_torch(ours, given) == ([], [])
    np.testing.assert_array_equal(ours.conv.weight.value, exchange.to_hwio(given["conv.weight"]))
    seen = np.arange(4 * 2 * 3, dtype=float).reshape(1, 4, 2, 3)  # what arrives at the flatten, channels first
    expected = seen.reshape(1, -1) @ given["fc.weight"].T + given["fc.bias"]
    np.testing.assert_allclose(ours[2:](exchange.to_nhwc(seen)), expected)


def test_features_that_are_no_images():
    with pytest.raises(ValueError, match=r"fc\.weight \(5, 26\) is not for flattened images of 4 channels"):
        exchange.load_torch(net(), {**weights(), "fc.weight": np.ones((5, 26))})


class Own(nn.Module):
    """A module of one's own: what it does to what comes in is its own affair."""

    def __init__(self, inner):
        self.inner = inner

    def vjp(self, x, training=True, needs_input=True):
        return self.inner.vjp(x, training=training, needs_input=needs_input)


UNCLEAR = {
    "behind a module of one's own": (nn.Sequential(Own(nn.ReLU()), nn.Flatten(), nn.Linear(8, 2, bias=False)), "2"),
    "inside one": (nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), Own(nn.Linear(8, 2, bias=False))), "1.inner"),
    "images of unknown channels": (nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False)), "1"),
    "joined with others": (
        nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Parallel(nn.Flatten(), nn.Flatten()), nn.Linear(8, 2, False)),
        "2",
    ),
    "added to others": (
        nn.Sequential(
            nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Residual(nn.Linear(8, 8, False)), nn.Linear(8, 2, False)
        ),
        "2.body",
    ),
    "grouped": (
        nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.GroupNorm(2, 8), nn.Linear(8, 2, False)),
        "2",
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_not_known_is_asked_for(case):
    ours, name = UNCLEAR[case]
    ours.initialize()
    before = {name: p.version for name, p in ours.parameters().items()}
    given = {
        name: np.ones(p.shape[::-1] if p.value.ndim != 4 else (2, 1, 1, 1)) for name, p in ours.parameters().items()
    }
    with pytest.raises(ValueError, match=rf"whether {name}(, 3)? sees flattened images.*is not known") as error:
        exchange.load_torch(ours, given)
    assert f"flattened={{'{name}':" in str(error.value)
    assert {name: p.version for name, p in ours.parameters().items()} == before


def test_what_is_told_is_believed():
    ours = nn.Sequential(nn.Flatten(), nn.Linear(8, 2, bias=False))
    given = {"1.weight": np.arange(16.0).reshape(2, 8)}
    exchange.load_torch(ours, given, flattened={"1": 1})
    np.testing.assert_array_equal(ours[1].weight.value, given["1.weight"].T)
    exchange.load_torch(ours, given, flattened={"1": 2})
    np.testing.assert_array_equal(ours[1].weight.value[:, 0], [0, 4, 1, 5, 2, 6, 3, 7])
    with pytest.raises(ValueError, match="is not for flattened images of 3 channels"):
        exchange.load_torch(ours, given, flattened={"1": 3})
    for wrong in ({"head": 2}, {"1": 0}, {"1": True}, {"1": "2"}):
        with pytest.raises(ValueError, match="flattened names layers of the network, with channels of at least 1"):
            exchange.load_torch(ours, given, flattened=wrong)


def test_what_is_not_among_the_weights_is_not_asked_for():
    ours = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), Own(nn.Linear(8, 2)))
    missing, _ = exchange.load_torch(ours, {"0.weight": np.ones((2, 1, 1, 1))}, strict=False)
    assert missing == ["1.inner.weight", "1.inner.bias"]


def test_a_linear_layer_over_the_channels_of_images_stays_as_it_is():
    ours = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2, 3, bias=False))
    w = np.arange(6.0).reshape(3, 2)
    exchange.load_torch(ours, {"0.weight": np.ones((2, 1, 1, 1)), "1.weight": w})
    np.testing.assert_array_equal(ours[1].weight.value, w.T)


def test_channels_add_up_side_by_side():
    branches = nn.Parallel(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False))
    ours = nn.Sequential(branches, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(None, 2, bias=False))
    given = {"0.0.weight": np.ones((2, 1, 1, 1)), "0.1.weight": np.ones((1, 1, 1, 1)), "3.weight": np.ones((2, 12))}
    given["3.weight"][0] = np.arange(12)
    exchange.load_torch(ours, given)
    np.testing.assert_array_equal(ours[3].weight.value[:, 0], np.arange(12).reshape(3, 4).T.ravel())


def test_a_slope_that_all_features_share_stays_as_it_is():
    ours = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.PReLU(), nn.Linear(None, 2, bias=False))
    given = {"0.weight": np.ones((2, 1, 1, 1)), "2.weight": np.ones(1), "3.weight": np.arange(8.0).reshape(2, 4)}
    assert exchange.load_torch(ours, given) == ([], [])
    np.testing.assert_array_equal(ours[3].weight.value[:, 0], [0, 2, 1, 3])


def test_a_shared_layer_must_see_the_same_everywhere():
    shared = nn.Linear(4, 4, bias=False)
    ours = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), shared, shared)
    with pytest.raises(ValueError, match="whether 2 sees flattened images"):
        exchange.load_torch(ours, {"0.weight": np.ones((2, 1, 1, 1)), "2.weight": np.ones((4, 4))})


def test_a_sum_of_flattened_images_and_what_a_linear_layer_gives_is_asked_about():
    block = nn.Residual(nn.Sequential(fc=nn.Linear(8, 8)))
    ours = nn.Sequential(pool=nn.AdaptiveAvgPool2d(1), conv=nn.Conv2d(8, 8, 1), flat=nn.Flatten(), block=block)
    given = {"conv.weight": np.ones((8, 8, 1, 1)), "conv.bias": np.ones(8), "block.fc.bias": np.ones(8)}
    given["block.fc.weight"] = np.arange(64.0).reshape(8, 8)
    with pytest.raises(ValueError, match=r"whether block\.body\.fc sees flattened images"):
        exchange.load_torch(ours, given)
    assert exchange.load_torch(ours, given, flattened={"block.body.fc": 1}) == ([], [])
    np.testing.assert_array_equal(block.body.fc.weight.value, given["block.fc.weight"].T)


@pytest.mark.parametrize("case", ["joined with others", "added to others", "grouped"])
def test_no_number_of_channels_brings_mixed_features_over(case):
    """A turned Linear would give what it is added to in another order: loaded, it would answer wrongly."""
    ours, name = UNCLEAR[case]
    arrays = {key: np.ones(1) for key in ours.initialize().parameters()}
    with pytest.raises(ValueError, match=rf"{name} works on features of flattened images mixed with others"):
        exchange.load_torch(ours, arrays, flattened={name: 2})


def test_images_that_a_module_of_ones_own_adds_to_may_still_be_flattened():
    ours = nn.Sequential(nn.Residual(Own(nn.Identity())), nn.Flatten(), nn.Linear(8, 2, bias=False)).initialize()
    theirs = np.arange(16.0).reshape(2, 8)
    assert exchange.load_torch(ours, {"2.weight": theirs}, flattened={"2": 2}) == ([], [])
    expected = theirs.reshape(2, 2, 4).transpose(2, 1, 0).reshape(8, 2)
    np.testing.assert_array_equal(ours.parameters()["2.weight"].value, expected)
