"""The derivatives of convolution, stated once above the three directions that engines serve.

`conv` is fprop; its gradients are dgrad and wgrad. `conv_transpose` is dgrad; its gradients are fprop and wgrad with
the roles of x and dy exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from xpconv.activations import FROM_OUTPUT
from xpconv.arrays import stand_in
from xpconv.backend import HALVES, Array, cast, conjugate, namespace, on_device_of
from xpconv.dispatch import Call, Needs, Pullback, offered, select
from xpconv.errors import dtype_name
from xpconv.runtime import copied
from xpconv.window import Window


class Epilogue(NamedTuple):
    """What is applied to the sums of a convolution before they are stored: activation(z · scale + bias + residual)."""

    bias: Array | None = None  # (O,)
    residual: Array | None = None  # (N, *out, O)
    activation: str | None = None
    keep_sums: bool = False  # return (y, sums): the gradient of some activations needs what they were applied to
    scale: Array | None = None  # (O,), of half precision's sums alone; it and the bias beside it are float32


# Activations whose slope half precision cannot lose: that of a rectifier shows in the sign of its rounded output.
_PLAIN_SLOPE = (None, "relu")


@dataclass(slots=True)
class ConvCall(Call):
    """conv and its derivatives: dx by dgrad, dw by wgrad, db and the residual's from dz, the gradient of the sum."""

    adds_beside = True
    window: Window
    groups: int
    activation: str | None

    def run(self) -> Array:
        x, w, b, residual = self.arrays
        return _fprop(x, w, self.window, self.groups, Epilogue(_flat(b), residual, self.activation))

    def vjp(self, needs: Needs) -> tuple[Array, Pullback]:
        x, w, b, residual = self.arrays
        activation = self.activation
        if activation not in _PLAIN_SLOPE and dtype_name(x.dtype) in HALVES:
            return self._vjp_of_halves(needs)
        lean = replace(self, arrays=(x if needs[1] else None, w if needs[0] else None, b, None))
        if activation is None:
            return self.run(), lambda dy, beside=None: lean.gradients(dy, None, needs, beside)
        if activation in FROM_OUTPUT:
            kept = y = self.run()
        else:
            epilogue = Epilogue(_flat(b), residual, activation, keep_sums=True)
            y, kept = _fprop(x, w, self.window, self.groups, epilogue)
        return y, lambda dy, beside=None: lean.gradients(*_epilogue_grad(activation, kept, dy, needs[2]), needs, beside)

    def _vjp_of_halves(self, needs: Needs) -> tuple[Array, Pullback]:
        """The whole of it in float32, each result rounded once.

        Engines widen each primitive by itself, but y (or the sums) and dz pass from one to the next here: a tanh that
        half precision rounds to 1 would have no slope left.
        """
        half, single = self.arrays[0].dtype, namespace(self.arrays[0]).float32
        wide = replace(self, arrays=tuple(None if x is None else cast(x, single) for x in self.arrays))
        y, pullback = wide.vjp(needs)

        def rounded(*given: Array) -> tuple[Array | None, ...]:
            return tuple(None if g is None else cast(g, half) for g in pullback(*(cast(x, single) for x in given)))

        return cast(y, half), rounded

    def gradients(
        self, dz: Array, db: Array | None, needs: Needs, beside: Array | None = None
    ) -> tuple[Array | None, ...]:
        """Gradients from dz, that of the sum before the activation, and from db where it is known already.

        No forward is needed for them. ``beside`` is added to dx as it is stored.
        """
        x, w, b, _ = self.arrays
        return (
            _dgrad(dz, w, self.window, self.groups, residual=beside) if needs[0] else None,
            _wgrad(x, dz, self.window, self.groups) if needs[1] else None,
            _bias_grad(dz, b, db) if needs[2] else None,
            self._residual_grad(dz) if needs[3] else None,
        )

    def _residual_grad(self, dz: Array) -> Array:
        """dz itself, but for the caller's own dy, which it is where there is no activation."""
        return copied(dz) if self.activation is None else dz

    def parts(self) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        x, w, b, residual = self.arrays
        y = stand_in(x, (x.shape[0], *self.window.out, w.shape[-1]))
        common = {"window": self.window, "groups": self.groups}
        return [
            ("conv_fprop", (x, w), {**common, "epilogue": Epilogue(_flat(b), residual, self.activation)}),
            ("conv_dgrad", (y, w), {**common, "bias": None, "residual": None}),
            ("conv_wgrad", (x, y), {**common, "w_shape": w.shape}),
            *([("bias_grad", (y,), {})] if b is not None and self.activation is None else []),
            *([("epilogue_grad", (y, y), {"activation": self.activation, "sum_it": True})] if self.activation else []),
        ]


@dataclass(slots=True)
class ConvTransposeCall(Call):
    """conv_transpose is dgrad; its own derivatives are fprop and wgrad with the roles of x and dy exchanged."""

    window: Window
    groups: int

    def run(self) -> Array:
        x, w, b, residual = self.arrays
        # dgrad and wgrad are adjoints and conjugate, where a transposed convolution does not
        return _dgrad(x, conjugate(w), self.window, self.groups, _flat(b), residual)

    def vjp(self, needs: Needs) -> tuple[Array, Pullback]:
        x, w, b, _ = self.arrays
        lean = replace(self, arrays=(x if needs[1] else None, w if needs[0] else None, b, None))
        return self.run(), lambda dy: lean.gradients(dy, needs)

    def gradients(self, dy: Array, needs: Needs) -> tuple[Array | None, ...]:
        x, w, b, _ = self.arrays
        return (
            _fprop(dy, conjugate(w), self.window, self.groups, Epilogue()) if needs[0] else None,
            conjugate(_wgrad(dy, x, self.window, self.groups)) if needs[1] else None,
            _bias_grad(dy, b, None) if needs[2] else None,
            copied(dy) if needs[3] else None,
        )

    def parts(self) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        x, w, b, residual = self.arrays
        y = stand_in(x, (x.shape[0], *self.window.size, w.shape[-2] * self.groups))
        common = {"window": self.window, "groups": self.groups}
        return [
            ("conv_dgrad", (x, w), {**common, "bias": _flat(b), "residual": residual}),
            ("conv_fprop", (y, w), {**common, "epilogue": Epilogue()}),
            ("conv_wgrad", (y, x), {**common, "w_shape": w.shape}),
            *([("bias_grad", (y,), {})] if b is not None else []),
        ]


def scaled(call: ConvCall, scale: Array, shift: Array) -> Array | None:
    """A call without a bias whose sums are multiplied by ``scale`` before ``shift`` is added, rounded once at the end.

    Both are (O,) float32 for x of half precision: a norm's at inference, which weights of half precision could not take
    in without being rounded anew. `None` where the engine that takes the convolution alone takes no scale. Layers ask
    for it; it is no op, and has no gradients.
    """
    x, w, _, residual = call.arrays
    common: dict[str, Any] = {"window": call.window, "groups": call.groups}
    options = {**common, "epilogue": Epilogue(shift, residual, call.activation, scale=scale)}
    with on_device_of(x):
        engine = offered("conv_fprop", x, w, alone={**common, "epilogue": Epilogue()}, **options)
        return None if engine is None else engine.run(x, w, **options)


def _fprop(x: Array, w: Array, window: Window, groups: int, epilogue: Epilogue) -> Any:
    options = {"window": window, "groups": groups, "epilogue": epilogue}
    return select("conv_fprop", x, w, **options).run(x, w, **options)


def _dgrad(
    dy: Array, w: Array, window: Window, groups: int, bias: Array | None = None, residual: Array | None = None
) -> Array:
    options = {"window": window, "groups": groups, "bias": bias, "residual": residual}
    return select("conv_dgrad", dy, w, **options).run(dy, w, **options)


def _wgrad(x: Array, dy: Array, window: Window, groups: int) -> Array:
    w_shape = (*window.kernel, x.shape[-1] // groups, dy.shape[-1])
    options = {"window": window, "groups": groups, "w_shape": w_shape}
    return select("conv_wgrad", x, dy, **options).run(x, dy, **options)


def _epilogue_grad(activation: str, kept: Array, dy: Array, sum_it: bool) -> tuple[Array, Array | None]:
    options = {"activation": activation, "sum_it": sum_it}
    dz, db = select("epilogue_grad", kept, dy, **options).run(kept, dy, **options)
    return dz, db


def _bias_grad(dy: Array, b: Array, db: Array | None) -> Array:
    """db in the shape of b, summed here unless it is known already."""
    return namespace(b).reshape(select("bias_grad", dy).run(dy) if db is None else db, tuple(b.shape))


def _flat(b: Array | None) -> Array | None:
    return b if b is None or b.ndim == 1 else namespace(b).reshape(b, (b.shape[-1],))
