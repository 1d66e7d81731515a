"""A convolutional network as a scikit-learn estimator: in pipelines, searches and cross-validation.

Importing this module imports scikit-learn; the rest of the package does not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Self

import numpy as np

from xpconv import nn, train
from xpconv.backend import use_backend
from xpconv.errors import message
from xpconv.hints import called
from xpconv.train.common import optional

optional("sklearn", "xpconv.sklearn")
from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402

Model = str | nn.Module | Callable[..., nn.Module]


class ConvNetClassifier(ClassifierMixin, BaseEstimator):
    """Classify images, or rows of features as signals, with a convolutional network.

    Parameters
    ----------
    model : str, function or Module
        ``"small"``: two convolutions with pools and two linear layers, for signals and images of any size; a name from
        `nn.models.MODELS`; a function of the keywords ``num_classes`` and ``in_channels`` that returns a network; or a
        network, which is copied and must have an output for each class.
    image_shape : tuple of int, optional
        ``(H, W)`` or ``(H, W, C)`` of the images that the rows of X hold; without it, rows are signals of one channel.
    epochs, batch_size : int
        Passes over the training data, and how many examples make a step.
    learning_rate, weight_decay : float
        Of AdamW; in `fit` the rate rises over a tenth of the run and falls to 0 in a cosine.
    clip_norm : float, optional
        Gradients are scaled down to this norm, that of all together, where it is larger.
    augment : function of (images, rng), optional
        See `train.augment`.
    backend : str, optional
        Where it is computed, as `use_backend` takes it; default: the backend in force.
    random_state : int, RandomState or None
        Of first weights, shuffles, dropout and augmentation.
    verbose : bool
        Show a progress bar on a terminal, else a line for each epoch.

    Attributes
    ----------
    classes_ : array, (classes,)
    net_ : Module
        The trained network, whose inputs are standardised images (N, H, W, C) or signals (N, W, C).
    history_ : train.History
        A record for each epoch.
    n_features_in_ : int
        ``X.shape[1]``.
    mean_, scale_ : array, (C,)
        By which each channel is standardised: those of the training data.

    Notes
    -----
    X is rows of features (N, F), images (N, H, W) or (N, H, W, C). A row without ``image_shape`` is a signal
    (F cells, 1 channel), so that neighbouring features should belong together.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from xpconv.sklearn import ConvNetClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = ConvNetClassifier(image_shape=(8, 8), epochs=3, random_state=0).fit(X[:900], y[:900])
    >>> bool(net.score(X[900:], y[900:]) > 0.8)
    True
    """

    def __init__(
        self,
        model: Model = "small",
        *,
        image_shape: tuple[int, ...] | None = None,
        epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        augment: train.augment.Augment | None = None,
        backend: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.augment = augment
        self.backend = backend
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, **unknown: Any) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : array, (N, F), (N, H, W) or (N, H, W, C)
        y : array, (N,)
            Class labels: numbers or strings.

        Returns
        -------
        the estimator itself

        Raises
        ------
        TypeError
            For ``sample_weight``: the loss is a plain mean. Examples that should count more can be there more often.
        """
        if unknown:
            raise _no_such(unknown)
        images, y = self._checked(X, y)
        self._begin(images, np.unique(y))
        self._train(images, _labels(y, self.classes_), self.epochs, train.schedule.Cosine(warm_up=0.1))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Train for one epoch, on from where it is.

        Parameters
        ----------
        X, y
            As of `fit`.
        classes : array, optional
            All classes there will be; default, in the first call: those in y. Later calls may leave it out.

        Returns
        -------
        the estimator itself
        """
        first = not hasattr(self, "net_")
        images, y = self._checked(X, y, first)
        known = np.unique(y if classes is None else classes) if first else self.classes_
        if classes is not None and not np.array_equal(np.unique(classes), known):
            rule, evidence = "classes are those of the first call.", f"then: {known} · now: {np.unique(classes)}"
            raise ValueError(message(type(self).__name__, rule, evidence))
        labels = _labels(y, known)
        if first:
            self._begin(images, known)
        self._check_shape(images)
        self._train(images, labels, 1, None)
        return self

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the probabilities of the classes, (N, classes), in the order of ``classes_``."""
        check_is_fitted(self)
        self._check_axes(X)
        images = self._images(validate_data(self, X, reset=False, allow_nd=True, dtype=np.float32))
        self._check_shape(images)
        logits = train.predict(self.net_, self._standardised(images)).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (N, classes), in the order of ``classes_``."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each example, (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # -- parts of the above --------------------------------------------------------------------------------------------

    def _checked(self, X: Any, y: Any, reset: bool = True) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, reset=reset, allow_nd=True, dtype=np.float32)
        check_classification_targets(y)
        self._of_rows = X.ndim == 2
        return self._images(X), y

    def _images(self, X: np.ndarray) -> np.ndarray:
        """What the network sees: (N, *spatial, C)."""
        shape: Any = self.image_shape
        if shape is not None and not isinstance(shape, (tuple, list)):
            rule = "image_shape must be (H, W) or (H, W, C)."
            raise ValueError(message(type(self).__name__, rule, f"given: image_shape={shape!r}"))
        if X.ndim > 4:
            rule = "takes rows of features (N, F), or images (N, H, W) or (N, H, W, C)."
            raise ValueError(message(type(self).__name__, rule, f"given: X of {X.ndim} axes"))
        if X.ndim > 2 or shape is None:
            return X if X.ndim == 4 else X[..., None]
        shape = (*shape, 1) if len(shape) == 2 else tuple(shape)
        if len(shape) != 3 or np.prod(shape) != X.shape[1]:
            rule = "image_shape must be (H, W) or (H, W, C), with as many values as a row of X has."
            evidence = f"image_shape={self.image_shape} · {X.shape[1]} features"
            raise ValueError(message(type(self).__name__, rule, evidence))
        return X.reshape(len(X), *shape)

    def _check_axes(self, X: Any) -> None:
        """Refuse images where rows were fitted, and rows where images were: scikit-learn counts features alone."""
        axes = len(getattr(X, "shape", ()))  # a list has none that would be known without a copy of it
        if axes > 1 and (axes == 2) != self._of_rows:
            rule = f"was fitted to {'rows of features (N, F)' if self._of_rows else 'images'}."
            remedy = "X.reshape(len(X), -1) makes rows of images." if self._of_rows else ""
            raise ValueError(message(type(self).__name__, rule, f"given: X of {axes} axes", remedy))

    def _check_shape(self, images: np.ndarray) -> None:
        if images.shape[1:] != self._shape:
            rule = f"was fitted to examples of shape {self._shape}, not {images.shape[1:]}."
            raise ValueError(message(type(self).__name__, rule))

    def _begin(self, images: np.ndarray, classes: np.ndarray) -> None:
        """Take the measure of the data, and make a network for it."""
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        axes = tuple(range(images.ndim - 1))
        spread = images.std(axis=axes, dtype=np.float64)
        self.classes_, self._shape = classes, images.shape[1:]
        self.mean_ = images.mean(axis=axes, dtype=np.float64)
        self.scale_ = np.where(spread > 0, spread, 1.0)
        self.history_ = train.History()
        self._seed = seed
        self._optimizer = train.AdamW(self.learning_rate, weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        with self._place():
            self.net_ = _network(self.model, len(classes), images).initialize(seed)
            outputs = train.predict(self.net_, self._standardised(images[:1])).shape
        if outputs != (1, len(classes)):
            rule = "the network must have an output for each class."
            evidence = f"{len(classes)} classes · outputs (N, {', '.join(map(str, outputs[1:]))})"
            raise ValueError(message(type(self).__name__, rule, evidence))

    def _train(self, images: np.ndarray, labels: np.ndarray, epochs: int, schedule: Any) -> None:
        with self._place():
            done = train.fit(
                self.net_,
                (self._standardised(images), labels),
                epochs=epochs,
                batch_size=self.batch_size,
                optimizer=self._optimizer,
                schedule=schedule,
                augment=self.augment,
                seed=self._seed + len(self.history_),
                progress=bool(self.verbose),
            )
        before = len(self.history_)
        self.history_.extend(replace(record, epoch=before + record.epoch) for record in done)
        self.history_.interrupted, self.history_.diverged = done.interrupted, done.diverged

    def _standardised(self, images: np.ndarray) -> np.ndarray:
        return ((images - self.mean_) / self.scale_).astype(np.float32)

    def _place(self) -> Any:
        return nullcontext() if self.backend is None else use_backend(self.backend)


def _no_such(unknown: dict[str, Any]) -> TypeError:
    """What `fit` was given that it does not take, and of weights, what to do instead."""
    rule = f"fit takes X and y, not {', '.join(unknown)}."
    repeat = "np.repeat(X, counts, axis=0), np.repeat(y, counts)"
    remedy = f"the loss is a plain mean: let rare classes come more often, as in {repeat}."
    return TypeError(message("ConvNetClassifier", rule, "", remedy if "sample_weight" in unknown else ""))


def _labels(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The place of each of y among the classes, which are in order."""
    labels = np.searchsorted(classes, y)
    strange = classes[np.minimum(labels, len(classes) - 1)] != y
    if strange.any():
        rule = "y holds classes that were not there at the first call."
        evidence = f"new: {', '.join(map(str, np.unique(y[strange])))}"
        raise ValueError(message("ConvNetClassifier", rule, evidence, "name all in partial_fit(..., classes=...)."))
    return labels


def _network(model: Model, classes: int, images: np.ndarray) -> nn.Module:
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    if isinstance(model, str) and model not in _MODELS:
        known = f"known: {', '.join(_MODELS)}; a network, or a function that makes one, may be passed too."
        raise ValueError(message("ConvNetClassifier", f"no model is called {model!r}.", "", known))
    if model == "small":
        return _small(classes, images.ndim - 2)
    make = _MODELS[model] if isinstance(model, str) else model
    return called("model", make, num_classes=classes, in_channels=images.shape[-1])


def _small(classes: int, rank: int) -> nn.Sequential:
    """LeNet's plan for signals and images of any size: its pools keep what is left over."""
    conv, pool = (nn.Conv1d, nn.MaxPool1d) if rank == 1 else (nn.Conv2d, nn.MaxPool2d)
    return nn.Sequential(
        conv1=conv(None, 32, 3, padding="same", activation="relu"),
        pool1=pool(2, ceil_mode=True),
        conv2=conv(32, 64, 3, padding="same", activation="relu"),
        pool2=pool(2, ceil_mode=True),
        flatten=nn.Flatten(),
        fc1=nn.Linear(None, 128, activation="relu"),
        dropout=nn.Dropout(0.5),
        fc2=nn.Linear(128, classes),
    )


_MODELS: dict[str, Callable[..., nn.Module]] = {"small": _small, **nn.models.MODELS}
