"""Which of many things in order are taken where only some are wanted."""

import numpy as np
from jaxtyping import Int


def evenly_spread(count: int, wanted: int) -> Int[np.ndarray, " n"]:
    """Places of `wanted` of `count` things, the first and the last among them (one alone is the first); all where `wanted` is 0.

    Fewer things than are wanted are all taken, each once.
    """
    return np.unique(np.linspace(0, count - 1, min(wanted or count, count)).round().astype(int))
