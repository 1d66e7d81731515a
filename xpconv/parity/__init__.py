"""What parity means: named samples of every op, the truth in float64, and how far an answer may be from it.

A `Case` belongs to one op; its `Sample`s are the calls worth making. `measure` makes one call on one target and
gives its error in units of the bound, so that 1.0 is the most that is right. The project's tests run every case on
every target. The constants of the bound have their home in `bounds.py`.
"""

from xpconv.parity.cases import CASES, case_of
from xpconv.parity.measure import Answer, answer, measure, serves, truth
from xpconv.parity.sample import Case, Sample
from xpconv.parity.targets import Target

__all__ = ["CASES", "Answer", "Case", "Sample", "Target", "answer", "case_of", "measure", "serves", "truth"]
