"""Pictures of a training run: learning curves, first-layer filters, worst mistakes.

They take NumPy arrays, draw on a canvas of their own (pyplot's state is left alone) and replace the file whole.
"""

from xpconv.plot.curves import learning_curves
from xpconv.plot.tiles import filters
from xpconv.plot.worst import mistakes

__all__ = ["filters", "learning_curves", "mistakes"]
