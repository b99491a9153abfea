"""Statistics of a table: three numbers by hand, scipy's tests, and the counting of NaNs."""

import numpy as np
import pytest
from scipy import stats

from quam_jax.evaluation import compare, statistics, summarise


def test_summary_by_hand():
    table = summarise([{"a": 1.0, "note": "text"}, {"a": 2.0, "b": float("nan")}, {"a": 6.0, "b": 4.0}])
    assert list(table) == ["a", "b"]
    assert table["a"]["mean"] == 3.0
    assert table["a"]["sd"] == pytest.approx(np.sqrt(7))  # (4 + 1 + 9) / 2
    assert (table["a"]["n"], table["a"]["n_nan"]) == (3, 0)
    assert table["b"]["mean"] == 4.0 and np.isnan(table["b"]["sd"]) and np.isnan(table["b"]["low"])
    assert (table["b"]["n"], table["b"]["n_nan"]) == (1, 1)  # a row without the column is not counted


def test_columns_of_nan_and_infinity():
    nothing = statistics.summarise_column(np.full(3, np.nan))
    assert np.isnan(nothing.mean) and (nothing.n, nothing.n_nan) == (0, 3)
    endless = statistics.summarise_column(np.array([1.0, np.inf]))
    assert endless.mean == np.inf and endless.n == 2


def test_bootstrap_interval():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = statistics.bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert statistics.bootstrap_interval(values) == (low, high)
    assert statistics.bootstrap_interval(values[::-1]) == (low, high)
    assert statistics.bootstrap_interval(values, seed=1) != (low, high)
    narrow = statistics.bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert statistics.bootstrap_interval(np.full(5, 3.0)) == (3.0, 3.0)


def test_many_cases_are_drawn_in_parts_with_the_same_resamples():
    values = np.random.default_rng(3).normal(size=1501)  # 698 of the 2,000 resamples fit the bound of 2^20 values
    chosen = np.random.default_rng(0).integers(0, 1501, (2000, 1501))
    expected = np.quantile(np.sort(values)[chosen].mean(axis=1), [0.025, 0.975])
    assert statistics.bootstrap_interval(values) == pytest.approx(tuple(expected), rel=1e-12)


def test_bootstrap_interval_equals_scipy():
    values = np.random.default_rng(1).exponential(size=60)
    got = statistics.bootstrap_interval(values, resamples=9000)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9000, method="percentile", rng=2).confidence_interval
    assert got == pytest.approx((expected.low, expected.high), abs=0.02)


def test_holm_by_hand():
    # sorted .01 .02 .04 times 3 2 1 = .03 .04 .04
    np.testing.assert_allclose(statistics.holm(np.array([0.04, 0.01, 0.02])), [0.04, 0.03, 0.04])
    # .3 * 3 = .9, then .35 * 2 = .7 is lifted to .9, .9 * 1 = .9
    np.testing.assert_allclose(statistics.holm(np.array([0.3, 0.35, 0.9])), [0.9, 0.9, 0.9])
    np.testing.assert_allclose(statistics.holm(np.array([0.6, np.nan, 0.7])), [1.0, np.nan, 1.0])
    assert statistics.holm(np.zeros(0)).size == 0


def test_paired_comparison():
    rng = np.random.default_rng(3)
    base = rng.random(25)
    table = {
        "base": base,
        "better": base + rng.normal(0.2, 0.1, 25),
        "same": base,
        "noise": base + rng.normal(0, 1, 25),
    }
    table["better"][4] = np.nan
    results = compare(table, baseline="base")
    assert list(results) == ["better", "same", "noise"]
    better = results["better"]
    difference = (table["better"] - base)[~np.isnan(table["better"])]
    assert better.difference == pytest.approx(difference.mean())
    assert better.p == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert better.low < better.difference < better.high and better.low > 0.1
    assert (better.n, better.n_nan) == (24, 1)
    assert better.p_holm == pytest.approx(3 * better.p)  # the smallest of three
    assert results["same"].p == results["same"].p_holm == 1.0 and results["same"].difference == 0.0
    assert results["noise"].p_holm == pytest.approx(min(1, 2 * results["noise"].p))


def test_wilcoxon_drops_zero_differences():
    base = np.zeros(10)
    values = np.array([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    result = compare({"a": base, "b": values}, baseline="a")["b"]
    assert result.p == pytest.approx(2 / 2**8)  # eight differences, all positive: exact two-sided
    assert result.n == 10


def test_comparison_without_common_cases():
    result = compare({"a": np.array([np.nan, 1.0]), "b": np.array([1.0, np.nan])}, baseline="a")["b"]
    assert np.isnan(result.p) and np.isnan(result.p_holm) and (result.n, result.n_nan) == (0, 2)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="baseline: expected one of"):
        compare({"a": np.ones(2)}, baseline="c")
    with pytest.raises(ValueError, match="b: expected 2 cases as in a, got 3"):
        compare({"a": np.ones(2), "b": np.ones(3)}, baseline="a")
