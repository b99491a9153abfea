"""Agreement of an uncertainty map u with a reference map v, each variant under its own name.

All functions take two arrays of equal shape (a whole map, or the pixels of a band) and compute in float64.
A map that is constant, or has fewer than two pixels, has no agreement: NaN, never 0.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Real
from scipy import stats

from .reference_maps import scale_to_unit

Scaling = Literal["raw", "minmax"]
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

# A residual of a map of norm 1 that is this small, in squares, is rounding: the covariates explain it.
_EXPLAINED = 1e-18


def pcc(u: Real[np.ndarray, "*space"], v: Real[np.ndarray, "*space"]) -> float:
    """Pearson correlation ρ = Σ(u-ū)(v-v̄) / sqrt(Σ(u-ū)² Σ(v-v̄)²)."""
    u, v = _pair(u, v)
    return float("nan") if _constant(u) or _constant(v) else _correlation(u, v)


def average_ranks(x: Real[np.ndarray, "*space"]) -> Float[np.ndarray, "*space"]:
    """Ranks from 1 in ascending order, tied pixels sharing their average rank."""
    return stats.rankdata(x).reshape(np.shape(x))


def spearman(u: Real[np.ndarray, "*space"], v: Real[np.ndarray, "*space"]) -> float:
    """Spearman correlation: Pearson of the average ranks."""
    return pcc(average_ranks(u), average_ranks(v))


def r2_cod_raw(u: Real[np.ndarray, "*space"], v: Real[np.ndarray, "*space"]) -> float:
    """Coefficient of determination 1 - Σ(v-u)²/Σ(v-v̄)² of the maps as they are; it may be negative."""
    u, v = _pair(u, v)
    return float("nan") if _constant(u) or _constant(v) else _determination(u, v)


def sdice_product(u: Real[np.ndarray, "*space"], v: Real[np.ndarray, "*space"], *, scaling: Scaling) -> float:
    """Soft Dice 2Σuv / (Σu + Σv); it is not 1 for two equal soft maps."""
    u, v = _scaled(u, v, scaling)
    return _ratio(2 * (u * v).sum(), u.sum() + v.sum())


def sdice_squared(u: Real[np.ndarray, "*space"], v: Real[np.ndarray, "*space"], *, scaling: Scaling) -> float:
    """Soft Dice 2Σuv / (Σu² + Σv²); 1 exactly for equal maps (Milletari et al. 2016)."""
    u, v = _scaled(u, v, scaling)
    return _ratio(2 * (u * v).sum(), np.square(u).sum() + np.square(v).sum())


def sdice_threshold(
    u: Real[np.ndarray, "*space"],
    v: Real[np.ndarray, "*space"],
    *,
    scaling: Scaling,
    thresholds: Sequence[float] = THRESHOLDS,
) -> float:
    """Mean over thresholds t of Dice(1[u>=t], 1[v>=t]); a threshold that neither map reaches is left out."""
    u, v = _scaled(u, v, scaling)
    if np.isnan(u).any() or np.isnan(v).any():
        return float("nan")
    scores = []
    for threshold in thresholds:
        in_u, in_v = u >= threshold, v >= threshold
        total = np.count_nonzero(in_u) + np.count_nonzero(in_v)
        if total:
            scores.append(2 * np.count_nonzero(in_u & in_v) / total)
    return float(np.mean(scores)) if scores else float("nan")


def partial_pcc(u: Real[np.ndarray, "*space"], v: Real[np.ndarray, "*space"], covariates: Real[np.ndarray, " q *space"]) -> float:
    """Pearson correlation left after regressing q covariate maps (and a constant) out of both maps.

    With the distance to the reference contour as covariate it says what a map knows beyond where the
    contour is. NaN if a covariate is not finite (no contour), or if the covariates explain one of the maps
    completely.
    """
    u, v = _pair(u, v)
    rows = _rows(covariates, u.size)
    if _constant(u) or _constant(v) or not np.isfinite(rows).all():
        return float("nan")
    basis: list[np.ndarray] = []
    for row in rows:
        if not _constant(row):
            direction = _residual(_unit(row), basis)
            if not _explained(direction):
                basis.append(direction / np.sqrt(np.square(direction).sum()))
    left_u, left_v = _residual(_unit(u), basis), _residual(_unit(v), basis)
    return float("nan") if _explained(left_u) or _explained(left_v) else _correlation(left_u, left_v)


def partial_spearman(
    u: Real[np.ndarray, "*space"], v: Real[np.ndarray, "*space"], covariates: Real[np.ndarray, " q *space"]
) -> float:
    """`partial_pcc` of average ranks: of u, of v and of every covariate."""
    if not np.isfinite(covariates).all():
        return float("nan")
    ranks = np.stack([average_ranks(covariate) for covariate in covariates])
    return partial_pcc(average_ranks(u), average_ranks(v), ranks)


def agreement(
    u: Real[np.ndarray, "*space"],
    v: Real[np.ndarray, "*space"],
    *,
    ranks: tuple[Real[np.ndarray, "*space"], Real[np.ndarray, "*space"]] | None = None,
) -> dict[str, float]:
    """Every figure but the partial ones, by name; the scaling of the maps is the end of a name, min-max where it is `scaled`.

    `ranks` are the average ranks of both maps, where the caller has them already and can save the sorting.
    """
    u, v = _pair(u, v)
    rho = pcc(u, v)
    figures = {
        "pcc": rho,
        "spearman": pcc(*ranks) if ranks is not None else spearman(u, v),
        "ncc": rho * (u.size - 1) / u.size if u.size else rho,  # deviations with ddof=1, as ValUES (Kahl et al. 2024)
        "r2_pearson": rho**2,
    }
    # A scaled pair is scaled once, and its figures are the raw figures of what came out.
    scaled_u, scaled_v = _scaled(u, v, "minmax")
    figures["r2_cod_scaled"] = r2_cod_raw(scaled_u, scaled_v)
    figures["r2_cod_raw"] = r2_cod_raw(u, v)
    for name, pair in {"raw": (u, v), "minmax": (scaled_u, scaled_v)}.items():
        figures[f"sdice_product_{name}"] = sdice_product(*pair, scaling="raw")
        figures[f"sdice_squared_{name}"] = sdice_squared(*pair, scaling="raw")
        figures[f"sdice_threshold_{name}"] = sdice_threshold(*pair, scaling="raw")
    return figures


def _pair(u: np.ndarray, v: np.ndarray) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    if np.shape(u) != np.shape(v):
        raise ValueError(f"agreement: expected two maps of one shape, got {np.shape(u)} and {np.shape(v)}")
    return np.asarray(u, dtype=np.float64).ravel(), np.asarray(v, dtype=np.float64).ravel()


def _rows(covariates: np.ndarray, size: int) -> Float[np.ndarray, "q n"]:
    rows = np.asarray(covariates, dtype=np.float64)
    rows = rows.reshape(rows.shape[0], -1)
    if rows.shape[1] != size:
        raise ValueError(f"covariates: expected maps of {size} pixels, got {rows.shape[1]}")
    return rows


def _constant(x: np.ndarray) -> bool:
    return x.size < 2 or bool(x.min() == x.max())


# Sums are written as products and `sum`: pairwise summation stays accurate over millions of pixels and starts
# no threads, as a BLAS dot product does.
def _unit(x: np.ndarray) -> Float[np.ndarray, " n"]:
    x = x - x.mean()
    return x / np.sqrt(np.square(x).sum())


def _correlation(u: np.ndarray, v: np.ndarray) -> float:
    return float(np.clip((_unit(u) * _unit(v)).sum(), -1.0, 1.0))


def _determination(u: np.ndarray, v: np.ndarray) -> float:
    return float(1.0 - np.square(v - u).sum() / np.square(v - v.mean()).sum())


def _scaled(u: np.ndarray, v: np.ndarray, scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    u, v = _pair(u, v)
    if scaling not in ("raw", "minmax"):
        raise ValueError(f"scaling: expected 'raw' or 'minmax', got {scaling!r}")
    if _constant(u) or _constant(v):
        return np.full(1, np.nan), np.full(1, np.nan)
    return (u, v) if scaling == "raw" else (scale_to_unit(u), scale_to_unit(v))


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below != 0 else float("nan")


def _residual(x: np.ndarray, basis: list[np.ndarray]) -> Float[np.ndarray, " n"]:
    """What is left of a centred, normalised map outside the span of an orthonormal basis."""
    # Twice, because one pass leaves a rounding error that grows with how much of the map the basis explains.
    for direction in basis * 2:
        x = x - (x * direction).sum() * direction
    return x


def _explained(x: np.ndarray) -> bool:
    return bool(np.square(x).sum() <= _EXPLAINED)
