"""Training: optimizers, learning-rate schedules, the loop, and data sets."""

from xpconv.train import augment, data, schedule
from xpconv.train.checkpoint import Checkpoint
from xpconv.train.data import Dataset, load
from xpconv.train.fit import evaluate, fit, predict
from xpconv.train.history import Epoch, History
from xpconv.train.objective import Evaluation
from xpconv.train.optim import SGD, Adam, AdamW, Optimizer
from xpconv.train.progress import Bar, Lines, Progress, Together

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
    "Optimizer",
    "Progress",
    "Together",
    "augment",
    "data",
    "evaluate",
    "fit",
    "load",
    "predict",
    "schedule",
]
