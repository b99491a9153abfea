"""Figures of many cases one after the other, with the names that TorchMetrics has given such objects."""

from typing import Any

from .evaluate import Row, evaluate
from .statistics import summarise


class Scores:
    """`update` with a case, `compute` the means: the figures of `evaluate` over cases that come one by one.

    Examples:
        >>> import numpy as np
        >>> scores = Scores()
        >>> raters = np.array([[[0, 1], [1, 1]], [[0, 0], [1, 1]]])
        >>> row = scores.update({"total": np.array([[0.1, 0.6], [0.2, 0.1]])}, raters, segmentation=raters[0])
        >>> scores.compute()["dice_consensus"]["n"]
        1
    """

    def __init__(self, **options: Any):
        """Options of `evaluate` that all cases share, such as `classes` or `band`."""
        self.options, self.rows = options, list[Row]()

    def update(self, maps: Any, raters: Any, **case: Any) -> Row:
        """Add a case, as `evaluate(maps, raters, ...)` takes it, and return its row; ValueError as there."""
        row = evaluate(maps, raters, **{**self.options, **case})
        self.rows.append(row)
        return row

    def compute(self) -> dict[str, dict[str, float]]:
        """Of every figure mean, sd, 95 % interval (`low`, `high`), the cases that have it (`n`) and that do not (`n_nan`)."""
        return summarise(self.rows)

    def reset(self) -> None:
        """Forget all cases."""
        self.rows = []
