"""Where two parallel files with unequal numbers of lines stop being in line."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def first_line(source: Sequence[int], target: Sequence[int]) -> int:
    """Return the line, from 1, from which on the lengths of two texts no longer agree line by line.

    The lengths of a sentence and of its translation are correlated (Gale and Church 1993,
    aclanthology.org/J93-1004). So the files agree best if the lines before the returned one are compared one by
    one, and those after it with a shift by the difference in numbers.

    Args:
        source: The number of characters of each line of one file.
        target: That of the other file, which has another number of lines.
    """
    long, short = (source, target) if len(source) > len(target) else (target, source)
    longer, shorter = (np.log1p(np.asarray(each, np.float64)) for each in (long, short))
    shift = len(longer) - len(shorter)
    usual = float(np.median(longer) - np.median(shorter)) if len(shorter) else 0.0
    before = _costs(longer[: len(shorter)], shorter, usual)
    after = _costs(longer[shift:], shorter, usual)
    # The cost of a change at line i: that of lines up to i as they are, and of later ones shifted.
    total = np.append(0, before.cumsum()) + np.append(after[::-1].cumsum()[::-1], 0)
    return int(total.argmin()) + 1


def _costs(one: Floats, other: Floats, usual: float) -> Floats:
    cost: Floats = np.abs(one - other - usual)
    return cost
