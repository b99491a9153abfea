"""Figures of an order of cases: error found in the budget, areas under retention curves, and their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

BUDGET = 0.2  # share of the cases that is labelled
RESAMPLES, RANDOM_ORDERS = 2000, 2000


def curve_of(rows: Sequence[dict[str, Any]], by: str, *, error: str) -> np.ndarray:
    """The retention curve of an order; `oracle` orders by the error itself."""
    from quam_jax.evaluation.review import order_by, retention_curve

    errors = np.array([row[error] for row in rows], float)
    order = np.argsort(-errors, kind="stable") if by == "oracle" else order_by(criteria_of(rows), by.split(","))[0]
    return retention_curve(errors, order)


def criteria_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """The criteria of the rows, NaN where the file has null."""
    return [{n: float("nan") if v is None else v for n, v in row["criteria"].items()} for row in rows]


def figures(rows: Sequence[dict[str, Any]], by: str, *, error: str) -> dict[str, float]:
    """Share of the error found in the budget, and the area under the curve, up to the budget and in all."""
    from quam_jax.evaluation.review import retention_area

    curve = curve_of(rows, by, error=error)
    places = np.linspace(0, 1, len(curve))
    return {
        "found": 1 - float(np.interp(BUDGET, places, curve)),
        "area_budget": retention_area(curve, up_to=BUDGET),
        "area": retention_area(curve),
    }


def random_figures(rows: Sequence[dict[str, Any]], *, error: str) -> dict[str, float]:
    """Mean and the middle 95 % of random orders."""
    from quam_jax.evaluation.review import retention_area, retention_curve

    rng, errors = np.random.default_rng(0), np.array([row[error] for row in rows], float)
    curves = [retention_curve(errors, rng.permutation(len(errors))) for _ in range(RANDOM_ORDERS)]
    found = [1 - np.interp(BUDGET, np.linspace(0, 1, len(c)), c) for c in curves]
    areas = [retention_area(c, up_to=BUDGET) for c in curves]
    low, high = np.quantile(found, [0.025, 0.975])
    return {
        "found": float(np.mean(found)),
        "found_low": float(low),
        "found_high": float(high),
        "area_budget": float(np.mean(areas)),
        "area": float(np.mean([retention_area(c) for c in curves])),
    }


def bootstrap(
    tables: dict[str, Sequence[dict[str, Any]]], orders: dict[str, tuple[str, str]], *, error: str, base: str
) -> dict[str, dict[str, float]]:
    """Intervals of the figures of every order, and of its difference from `base`; one resample serves all orders."""
    count, rng = len(next(iter(tables.values()))), np.random.default_rng(1)
    draws: dict[str, list[list[float]]] = {name: [] for name in orders}
    for _ in range(RESAMPLES):
        picked = rng.integers(0, count, count)
        for name, (setting, by) in orders.items():
            some = figures([tables[setting][i] for i in picked], by, error=error)
            draws[name].append([some["found"], some["area_budget"]])
    values = {name: np.array(v) for name, v in draws.items()}
    found = {}
    for name, drawn in values.items():
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
        less, more = np.nanquantile(drawn - values[base], [0.025, 0.975], axis=0)
        found[name] = {
            "found_low": low[0],
            "found_high": high[0],
            "area_budget_low": low[1],
            "area_budget_high": high[1],
            "found_gain_low": less[0],
            "found_gain_high": more[0],
            "area_gain_low": less[1],
            "area_gain_high": more[1],
        }
    return {name: {k: float(v) for k, v in row.items()} for name, row in found.items()}


def random_band(rows: Sequence[dict[str, Any]], *, error: str) -> tuple[np.ndarray, np.ndarray]:
    """The middle 95 % of random orders, place by place."""
    from quam_jax.evaluation.review import retention_curve

    rng, errors = np.random.default_rng(0), np.array([row[error] for row in rows], float)
    low, high = np.quantile(
        [retention_curve(errors, rng.permutation(len(errors))) for _ in range(RANDOM_ORDERS)], [0.025, 0.975], axis=0
    )
    return low, high
