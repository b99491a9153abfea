"""Statistics of a table: columns over cases, and paired comparisons between methods.

NaN marks a figure that does not exist for a case; it is left out of every statistic and counted.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real
from scipy import stats

DRAWN = 2**20  # values that the bootstrap holds at a time, however many cases there are


class Summary(NamedTuple):
    """Mean, standard deviation (n-1) and bootstrap interval of the mean; cases used and NaNs left out."""

    mean: float
    sd: float
    low: float
    high: float
    n: int
    n_nan: int


class Comparison(NamedTuple):
    """Mean paired difference, its bootstrap interval, and the Wilcoxon p before and after correction."""

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int
    n_nan: int


def bootstrap_interval(
    values: Real[np.ndarray, " n"], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over cases (Efron 1979); NaN with fewer than two values.

    The seed fixes the resamples, and equal lengths get equal resamples, so columns are comparable.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size < 2:
        return float("nan"), float("nan")
    # Sorting makes the interval depend on the values only, not on the order of the cases.
    ordered, rng = np.sort(values), np.random.default_rng(seed)
    some = max(1, DRAWN // values.size)
    means = np.concatenate(
        [
            ordered[rng.integers(0, values.size, (min(some, resamples - first), values.size))].mean(axis=1)
            for first in range(0, resamples, some)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summarise_column(values: Real[np.ndarray, " n"], *, level: float = 0.95, seed: int = 0) -> Summary:
    """Mean ± sd, bootstrap interval and counts of one column; sd is NaN with a single value."""
    values = np.asarray(values, dtype=np.float64)
    used = values[~np.isnan(values)]
    # An infinite figure makes the mean infinite, which is right and no cause for a warning.
    with np.errstate(invalid="ignore"):
        low, high = bootstrap_interval(used, level=level, seed=seed)
        mean = float(used.mean()) if used.size else float("nan")
        sd = float(used.std(ddof=1)) if used.size > 1 else float("nan")
    return Summary(mean, sd, low, high, int(used.size), int(values.size - used.size))


def summarise(rows: Sequence[Mapping[str, float | str]], *, level: float = 0.95, seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean, sd, low, high, n and n_nan of every numeric column of a table of cases, ready for a JSON file.

    Columns keep the order of their first appearance; text (notes, case names) is left out. A row that lacks
    a column is not counted in it, so n + n_nan is the number of rows that have it.
    """
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if not isinstance(value, str):
                columns.setdefault(name, []).append(float(value))
    return {name: summarise_column(np.array(values), level=level, seed=seed)._asdict() for name, values in columns.items()}


def holm(p_values: Real[np.ndarray, " h"]) -> Float[np.ndarray, " h"]:
    """Holm's step-down correction (1979): sorted p_(i)·(h-i+1), made monotone, at most 1; NaNs stay apart."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected


def compare(
    columns: Mapping[str, Real[np.ndarray, " n"]], *, baseline: str, level: float = 0.95, seed: int = 0
) -> dict[str, Comparison]:
    """Paired difference of every method from `baseline`: method - baseline, case by case.

    `columns` holds one figure of each method for the same cases in the same order; a pair with a NaN is
    left out and counted. p is the two-sided Wilcoxon signed-rank test (zero differences dropped; 1 if all
    are zero), and p_holm is corrected for the number of methods compared. Raises ValueError for an unknown
    baseline or unequal lengths.
    """
    if baseline not in columns:
        raise ValueError(f"baseline: expected one of {sorted(columns)}, got {baseline!r}")
    reference = np.asarray(columns[baseline], dtype=np.float64)
    names = [name for name in columns if name != baseline]
    differences = {}
    for name in names:
        values = np.asarray(columns[name], dtype=np.float64)
        if values.shape != reference.shape:
            raise ValueError(f"{name}: expected {reference.size} cases as in {baseline}, got {values.size}")
        differences[name] = values - reference
    p = np.array([_wilcoxon(difference[~np.isnan(difference)]) for difference in differences.values()])
    results = {}
    for name, before, after in zip(names, p, holm(p), strict=True):
        column = summarise_column(differences[name], level=level, seed=seed)
        results[name] = Comparison(column.mean, column.low, column.high, float(before), float(after), column.n, column.n_nan)
    return results


def _wilcoxon(difference: np.ndarray) -> float:
    if not difference.size:
        return float("nan")
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference[difference != 0]).pvalue)
