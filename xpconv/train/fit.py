"""The training loop, and the loops that measure and use what it gave."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from xpconv import notices
from xpconv.arguments import flag, integer
from xpconv.errors import describe, message
from xpconv.hints import explained
from xpconv.runtime import runtime_of
from xpconv.train.augment import Augment, moves_pixels
from xpconv.train.checkpoint import Checkpoint, ingredients, is_finite
from xpconv.train.common import AN_OPTIMIZER, FINITE, check_part
from xpconv.train.feed import Feed, place_of
from xpconv.train.history import History
from xpconv.train.leftover import check_last_batch
from xpconv.train.objective import Evaluation, Loss, Objective
from xpconv.train.optim import Adam, Optimizer
from xpconv.train.progress import Progress, display
from xpconv.train.replayed_step import ReplayedStep
from xpconv.train.run import Run, measured
from xpconv.train.schedule import Schedule
from xpconv.train.usual import Usual

if TYPE_CHECKING:
    from xpconv.nn import Module


@explained("data is one pair: fit(net, (images, labels), epochs=..., batch_size=...).")
def fit(
    net: Module,
    data: tuple[Any, Any],
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    loss: Loss = "softmax_cross_entropy",
    validation: tuple[Any, Any] | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    progress: bool | Progress = True,
    capture: bool = True,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train a network.

    Parameters
    ----------
    net : Module
        Where its parameters are, there it is trained; one without values yet is made on the backend in force, float32.
    data : (images, labels)
        Arrays (N, ...) of any library, cast and moved to the network. Labels are integers in 0..classes-1 for
        ``"softmax_cross_entropy"``, numbers of the output's shape for the other named losses.
    epochs, batch_size : int
        The last batch of an epoch holds what is left.
    optimizer : Optimizer, optional
        Default: ``Adam(1e-3)``.
    schedule : function of (step, total_steps), optional
        Multiplies the optimizer's learning rate at each step; afterwards the rate is as it was.
    loss : str, op or function
        ``"softmax_cross_entropy"``, ``"mse"``, ``"binary_cross_entropy_with_logits"``, or an op of outputs and targets
        that gives their mean loss; `functools.partial` binds options, such as ``label_smoothing``. Or a function of
        one's own, of (outputs, targets), that returns the mean loss and its gradient in the outputs: see the second
        example. It gets integers as int64, of any value and shape, and other targets in the network's dtype.
    validation : (images, labels), optional
        Measured after each epoch.
    augment : function of (images, rng), optional
        Applied to each batch where the network is, and cast back to its dtype; see `train.augment`.
    seed : int
        Of the shuffles and augmentations, which are then the same on every backend. The first weights and the dropout
        masks follow ``net.initialize(seed)``.
    progress : bool or Progress
        Show a bar on a terminal, else a line per epoch; or tell a `Progress` of one's own.
    capture : bool
        Record the step once it has run twice, and replay it from then on, without Python between its kernels: as a
        CUDA graph on CuPy, by the compiled kernels' team on NumPy. The results are the same to the bit. The memory of
        one step is kept; on NumPy, where the first replay is compared with a step as usual, nearly that of two is
        taken. Where a step cannot be recorded, the display says why, and steps run call by call. What layers decide on
        the host is then decided once; such a layer sets ``capturable = False``. On NumPy a layer class of one's own is
        recorded only if it sets ``capturable = True``: it computes by ops and other layers alone; a step with a loss
        of one's own is not. `Step` is the same for a loop of one's own.
    checkpoint : Checkpoint, optional
        Where the run is kept after every epoch; with its ``resume``, the run that is there goes on.

    Returns
    -------
    History
        A record per epoch, those before a resume among them. The first Ctrl-C ends the run after the step in progress,
        with ``interrupted`` set in the history; a second one raises KeyboardInterrupt at once. An epoch whose loss is
        not finite is the last, with ``diverged`` set.

    Raises
    ------
    ValueError, TypeError
        Before the first step, for data that do not fit: another number of labels than of images, labels that are not
        integers or out of range, targets of another shape than the outputs, or outside of 0..1 for
        ``"binary_cross_entropy_with_logits"``; an ``augment`` that moves pixels without their labels; a ``batch_size``
        that leaves one example over where a batch norm would then have one value of each channel.
    FileError
        Before the first step, where the checkpoint to go on with is not there, or is of another run.

    Warns
    -----
    RuntimeWarning
        Where the loss is not finite, or an epoch cannot be kept in the checkpoint.

    Notes
    -----
    Nothing waits for the device within an epoch: losses and counts of right answers are gathered there. On CuPy all
    work is done on a stream of its own, in order with the stream that is current. Data too large to be moved whole go
    through pinned memory, each batch while the one before it is computed with.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import nn, train
    >>> x = np.asarray([[0.0, 1.0], [1.0, 0.0]] * 20, dtype="float32")
    >>> net = nn.Sequential(nn.Linear(None, 2)).initialize(seed=0)
    >>> history = train.fit(net, (x, [1, 0] * 20), epochs=20, batch_size=10, optimizer=train.SGD(0.5), progress=False)
    >>> history[-1].accuracy
    1.0

    Labels of -1 are to count for nothing:

    >>> import xpconv
    >>> from xpconv import ops
    >>> def loss(outputs, labels):
    ...     counts = (labels >= 0).astype(outputs.dtype)
    ...     each, pullback = xpconv.vjp(ops.softmax_cross_entropy, outputs, labels.clip(0), reduction="none")
    ...     weights = counts / counts.sum()
    ...     return (weights * each).sum(), pullback(weights)[0]
    >>> train.fit(net, (x, [1, -1] * 20), epochs=1, batch_size=10, loss=loss, progress=False).diverged
    False
    """
    epochs = integer("fit", "epochs", epochs, least=1)
    seed, capture = integer("fit", "seed", seed), flag("fit", "capture", capture)
    _check_parts(optimizer, schedule, augment, checkpoint)
    shown, objective = display(progress), Objective("fit", loss)
    optimizer = Adam() if optimizer is None else optimizer
    runtime = runtime_of(place_of(net))
    with runtime.working(), notices.told_to(shown.on_note, shown.on_wait):
        feed = Feed("fit", net, data, objective, batch_size)
        if feed.targets.array.ndim > 2 and moves_pixels(augment):
            rule = "this augment moves the pixels of images and not their labels."
            remedy = "augment both beforehand, or in a loop of your own: see train.augment."
            raise ValueError(message("fit", rule, describe("labels", feed.targets.array), remedy))
        held_out = None if validation is None else Feed("fit (validation)", net, validation, objective, batch_size)
        check_last_batch("fit", net, feed.images.first(), feed.samples, feed.batch_size)
        history = History()
        if checkpoint is not None:
            made_of = ingredients(net, feed, objective, optimizer, schedule, augment, seed)
            history = checkpoint.begin(net, optimizer, made_of, epochs, shown.on_note)
        step: Any = Usual(net, net.parameters(), objective, optimizer, feed.labelled)
        recording = runtime if capture and runtime.records else None
        if recording is not None:
            step = ReplayedStep(step, recording, shown.on_note)
        parts = (net, step, feed, held_out, recording, objective, optimizer, optimizer.lr)
        Run(*parts, schedule, augment, seed, shown, epochs, checkpoint).all(history)
        faults = feed.faults() if history.diverged else ""
    if history.diverged:
        rule = f"the loss is not finite in epoch {len(history)}; training stopped."
        told = f"loss {history[-1].loss}" + (f"; of the numbers given {faults}" if faults else "")
        remedy = FINITE if faults else "a smaller learning rate may help; so may images scaled to 0..1."
        if not is_finite(net):
            remedy += "\n  the network itself now holds such numbers: begin again with net.initialize(seed)."
        warnings.warn(message("fit", rule, told, remedy), RuntimeWarning, stacklevel=3)  # past `explained`
    return history


def evaluate(
    net: Module, data: tuple[Any, Any], batch_size: int = 256, *, loss: Loss = "softmax_cross_entropy"
) -> Evaluation:
    """Measure a network on images with labels.

    Parameters
    ----------
    net : Module
    data : (images, labels)
        As `fit` takes them.
    batch_size : int
        Changes memory and speed alone.
    loss : str, op or function
        As `fit` takes it.

    Returns
    -------
    Evaluation
        ``loss``, the mean over all images, and ``accuracy`` in 0..1, `None` where the targets are not class labels.

    Raises
    ------
    ValueError, TypeError
        As `fit` does.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import nn, train
    >>> train.evaluate(nn.Sequential(nn.Flatten()), (np.eye(4), [0, 1, 2, 0])).accuracy
    0.75
    """
    objective = Objective("evaluate", loss)
    runtime = runtime_of(place_of(net))
    with runtime.working():
        return measured(net, Feed("evaluate", net, data, objective, batch_size), objective, runtime)


def _check_parts(optimizer: object, schedule: object, augment: object, checkpoint: object) -> None:
    """Refuse a name, or a class that was not called, where an object is wanted."""
    wanted = {
        "optimizer": (optimizer, isinstance(optimizer, Optimizer), AN_OPTIMIZER),
        "schedule": (
            schedule,
            callable(schedule),
            "a function of (step, total_steps), such as train.schedule.Cosine()",
        ),
        "augment": (augment, callable(augment), "a function of (images, rng), such as train.augment.random_flip()"),
        "checkpoint": (checkpoint, isinstance(checkpoint, Checkpoint), "a train.Checkpoint(path)"),
    }
    for name, (given, fits, kind) in wanted.items():
        if given is not None:
            check_part("fit", name, given, fits, kind)
