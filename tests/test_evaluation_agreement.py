"""Agreement of two maps: hand-computed figures, scipy as the other way, laws of constants and covariates."""

import numpy as np
import pytest
from scipy import ndimage, stats

from quam_jax.evaluation import agreement as agree

U = np.array([[0.0, 1.0], [2.0, 3.0]])
V = np.array([[0.0, 2.0], [4.0, 6.0]])


def test_figures_of_a_doubled_map():
    figures = agree.agreement(U, V)
    expected = {
        "pcc": 1.0,
        "spearman": 1.0,
        "ncc": 0.75,  # rho (N-1)/N with N = 4
        "r2_pearson": 1.0,
        "r2_cod_scaled": 1.0,
        "r2_cod_raw": 0.3,  # 1 - (0+1+4+9) / (9+1+1+9)
        "sdice_product_raw": 56 / 18,  # uv sums to 28, u to 6, v to 12
        "sdice_squared_raw": 0.8,  # 56 / (14 + 56)
        "sdice_threshold_raw": 1.0,  # both maps pass .1 ... .9 in the same three pixels
        "sdice_product_minmax": 7 / 9,  # both (0, 1/3, 2/3, 1): 2 * 14/9 / 4
        "sdice_squared_minmax": 1.0,
        "sdice_threshold_minmax": 1.0,
    }
    assert figures == pytest.approx(expected, rel=1e-12)


def test_sdice_threshold_by_hand():
    u, v = np.array([0.0, 0.5, 1.0, 0.2]), np.array([0.0, 1.0, 0.5, 0.2])
    # at .4 both are {1, 2}: Dice 1; at .8 they are {2} and {1}: Dice 0; 2 is reached by neither and left out
    assert agree.sdice_threshold(u, v, scaling="raw", thresholds=(0.4, 0.8, 2.0)) == 0.5
    assert agree.sdice_threshold(u, v, scaling="raw", thresholds=(0.5,)) == 1.0  # .5 itself is in both
    assert np.isnan(agree.sdice_threshold(u, v, scaling="raw", thresholds=(2.0,)))


def test_negative_determination_is_kept():
    u, v = np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0])
    assert agree.r2_cod_raw(u, v) == pytest.approx(-3.0)  # 1 - 8/2
    assert agree.agreement(u, v)["r2_cod_scaled"] == pytest.approx(-3.0)  # scaling changes both sums by the same factor


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6)])
def test_correlations_equal_scipy(shape):
    rng = np.random.default_rng(0)
    u = rng.integers(0, 6, shape) / 3  # many ties
    v = u + rng.integers(0, 4, shape)
    assert agree.pcc(u, v) == pytest.approx(stats.pearsonr(u.ravel(), v.ravel()).statistic, abs=1e-14)
    assert agree.spearman(u, v) == pytest.approx(stats.spearmanr(u.ravel(), v.ravel()).statistic, abs=1e-14)
    size = u.size
    by_definition = np.sum((u - u.mean()) * (v - v.mean())) / (size * u.std(ddof=1) * v.std(ddof=1))
    assert agree.agreement(u, v)["ncc"] == pytest.approx(by_definition, abs=1e-14)
    ranks = agree.average_ranks(u)
    assert ranks.shape == shape
    np.testing.assert_array_equal(ranks.ravel(), stats.rankdata(u))
    assert agree.agreement(u, v, ranks=(ranks, agree.average_ranks(v))) == agree.agreement(u, v)


def test_agreement_holds_the_single_figures():
    rng = np.random.default_rng(1)
    u, v = rng.random((6, 5)), rng.random((6, 5))
    figures = agree.agreement(u, v)
    assert figures["pcc"] == agree.pcc(u, v)
    assert figures["spearman"] == agree.spearman(u, v)
    assert figures["r2_pearson"] == pytest.approx(agree.pcc(u, v) ** 2, rel=1e-14)
    assert figures["r2_cod_raw"] == agree.r2_cod_raw(u, v)
    assert figures["sdice_squared_minmax"] == agree.sdice_squared(u, v, scaling="minmax")


@pytest.mark.parametrize("constant", [np.zeros((3, 3)), np.full((3, 3), 0.1)])
def test_constant_maps_have_no_agreement(constant):
    other = np.arange(9.0).reshape(3, 3)
    for u, v in ((constant, other), (other, constant), (constant, constant)):
        figures = agree.agreement(u, v)
        assert all(np.isnan(value) for value in figures.values()), figures
        assert np.isnan(agree.partial_pcc(u, v, other[None] ** 2))
        assert np.isnan(agree.partial_spearman(u, v, other[None] ** 2))


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_pixels_have_no_agreement(size):
    u = np.ones(size)
    assert all(np.isnan(value) for value in agree.agreement(u, u).values())
    assert np.isnan(agree.partial_pcc(u, u, u[None]))


def test_tiny_and_huge_maps_keep_their_correlation():
    rng = np.random.default_rng(2)
    u, v = rng.random(50), rng.random(50)
    assert agree.pcc(u * 1e-140, v * 1e140) == pytest.approx(agree.pcc(u, v), abs=1e-13)


def test_correlation_ignores_shift_scale_and_pixel_order():
    rng = np.random.default_rng(3)
    u, v = rng.random(200), rng.random(200)
    order = rng.permutation(200)
    assert agree.pcc(3 * u + 5, v) == pytest.approx(agree.pcc(u, v), abs=1e-13)
    assert agree.spearman(np.exp(u), v) == agree.spearman(u, v)
    assert agree.agreement(u[order], v[order]) == pytest.approx(agree.agreement(u, v), abs=1e-12)


def test_partial_with_one_covariate_is_the_textbook_formula():
    rng = np.random.default_rng(4)
    d = rng.random((10, 12))
    u, v = d + rng.random((10, 12)), d**2 + rng.random((10, 12))
    uv, ud, vd = agree.pcc(u, v), agree.pcc(u, d), agree.pcc(v, d)
    expected = (uv - ud * vd) / np.sqrt((1 - ud**2) * (1 - vd**2))
    assert agree.partial_pcc(u, v, d[None]) == pytest.approx(expected, abs=1e-12)
    ranks = [agree.average_ranks(x) for x in (u, v, d)]
    assert agree.partial_spearman(u, v, d[None]) == pytest.approx(
        agree.partial_pcc(ranks[0], ranks[1], ranks[2][None]), abs=1e-14
    )


def test_partial_with_several_covariates_equals_least_squares():
    rng = np.random.default_rng(5)
    covariates = rng.random((3, 80))
    u, v = covariates[0] + rng.random(80), covariates.sum(axis=0) + rng.random(80)
    design = np.vstack([covariates, np.ones(80)]).T
    left = [x - design @ np.linalg.lstsq(design, x, rcond=None)[0] for x in (u, v)]
    expected = np.corrcoef(left)[0, 1]
    assert agree.partial_pcc(u, v, covariates) == pytest.approx(expected, abs=1e-12)
    # a constant or a repeated covariate adds nothing
    doubled = np.vstack([covariates, covariates[:1] * 2 + 1, np.ones((1, 80))])
    assert agree.partial_pcc(u, v, doubled) == pytest.approx(expected, abs=1e-12)
    # neither does adding multiples of the covariates to a map change what is left
    assert agree.partial_pcc(u + 7 * covariates[2], v, covariates) == pytest.approx(expected, abs=1e-11)


def test_a_map_explained_by_the_distance_has_no_partial_figure():
    rng = np.random.default_rng(6)
    d, v = rng.random(100), rng.random(100)
    assert np.isnan(agree.partial_pcc(5 - 2 * d, v, d[None]))
    assert np.isnan(agree.partial_pcc(v, v, np.full((1, 100), np.inf)))
    assert np.isnan(agree.partial_spearman(v, v, np.full((1, 100), np.inf)))


def test_a_blurred_contour_scores_well_until_it_is_regressed_out():
    rng = np.random.default_rng(7)
    rows, columns = np.indices((64, 64))
    distance = np.abs(np.hypot(rows - 32, columns - 32) - 18)
    contour = np.exp(-(distance**2) / 8)
    v = contour * (1 + 0.2 * ndimage.gaussian_filter(rng.standard_normal((64, 64)), 2))
    u = contour + 0.01 * rng.random((64, 64))
    assert agree.pcc(u, v) > 0.95
    assert abs(agree.partial_pcc(u, v, np.stack([contour]))) < 0.2


@pytest.mark.usefixtures("unchecked")
def test_shapes_and_scaling_are_checked():
    with pytest.raises(ValueError, match="one shape"):
        agree.pcc(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="minmax"):
        agree.sdice_product(U, V, scaling="log")
    with pytest.raises(ValueError, match="covariates"):
        agree.partial_pcc(U, V, np.ones((1, 3)))
