"""How fast this machine runs xpconv, and other libraries beside it: what ``xpconv bench`` measures.

From the names to the figures: `architectures` derives the convolutions of the published networks, `shapes` gathers
the named layers into sets, a `case` is one of them at a batch size in one direction. Each of the `sides` lives in a
process of its own (`worker`, spoken to through `process`) and sleeps while another is timed; `truth` judges its answer
in float64 before any time counts. `run` goes through the cases, and again through those that are not `steady`;
`ceiling` says what the machine could do at most, and `table`, `report` and `chart` show what came of it.
"""

from xpconv.bench.case import Case
from xpconv.bench.layer import Layer
from xpconv.bench.result import Plan
from xpconv.bench.run import measure

__all__ = ["Case", "Layer", "Plan", "measure"]
