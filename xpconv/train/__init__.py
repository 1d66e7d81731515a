"""Training: optimizers, learning-rate schedules, the loop, and data sets."""

from typing import TYPE_CHECKING

from xpconv import hints
from xpconv.train import augment, data, schedule
from xpconv.train.checkpoint import Checkpoint
from xpconv.train.data import Dataset, load
from xpconv.train.fit import evaluate, fit
from xpconv.train.history import Epoch, History
from xpconv.train.objective import Evaluation
from xpconv.train.optim import SGD, Adam, AdamW, Optimizer
from xpconv.train.predictor import Predictor, predict
from xpconv.train.progress import Bar, Lines, Progress, Together
from xpconv.train.step import Step
from xpconv.train.usual import Measured

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Bar",
    "Checkpoint",
    "Dataset",
    "Epoch",
    "Evaluation",
    "History",
    "Lines",
    "Measured",
    "Optimizer",
    "Predictor",
    "Progress",
    "Step",
    "Together",
    "augment",
    "data",
    "evaluate",
    "fit",
    "load",
    "predict",
    "schedule",
]

if not TYPE_CHECKING:  # which would take every name for one that is there
    __getattr__ = hints.missing(__name__)
