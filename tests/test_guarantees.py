"""Guarantees in memory: what a case says, what cases say together, and what is then said of the next one."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from quam_jax.data.records import plain
from quam_jax.evaluation.conformal import binomial_band
from quam_jax.guarantees.calibrate import calibrate, deal, draw_patients, find_statements, fit_curve, outside
from quam_jax.guarantees.evidence import PROBABILITY, Evidence, Findings, gather, mean_dice, scores_of
from quam_jax.guarantees.guarantee import BETWEEN, FORMAT, INSIDE, OUTSIDE, apply_guarantee, guarantee_of, widened

ONE = np.eye(2, dtype=bool)[1:]


def findings(seed: int, size: int = 12, rank: int = 2) -> tuple[Findings, np.ndarray]:
    """A disc with a noisy probability; a good map, a useless one; and two raters who draw it a little larger or smaller."""
    rng = np.random.default_rng(seed)
    shape = (size,) * rank
    distance = np.sqrt(sum((x - size / 2 + rng.normal()) ** 2 for x in np.indices(shape)))
    edge = size / 3 - distance + rng.normal(0, 0.6)
    noise = rng.normal(0, 0.5, shape)
    probs = 1 / (1 + np.exp(-2 * (edge + noise)))
    own = (probs > 0.5).astype(np.int32)
    raters = np.stack([(edge + shift > 0).astype(np.int32) for shift in (rng.normal(0, 0.5), rng.normal(0, 0.5))])
    maps = {"useless": rng.random(shape).astype(np.float32), "softmax": np.minimum(probs, 1 - probs).astype(np.float32)}
    count = float(own.sum())
    spread = np.array([[0.9 * count, 1.1 * count]])
    scores = {"samples": float(np.clip(0.9 + rng.normal(0, 0.05), 0, 1))}
    return Findings(own, maps, probs[..., None].astype(np.float32), ONE, ("disc",), spread, scores), raters


def known(count: int, seed: int = 0, rank: int = 2) -> list[Evidence]:
    return [gather(*findings(seed + k, rank=rank), name=f"c{k}", sha256=f"{(k * 7919) % 10007:05d}") for k in range(count)]


@pytest.mark.parametrize("name", ["useless", "softmax"])
def test_the_losses_of_a_case_are_those_of_its_masks(name: str) -> None:
    found, raters = findings(3)
    case = gather(found, raters)
    values, own = np.asarray(found.maps[name], np.float64), found.segmentation == 1
    for threshold in (-1.0, 0.1, 0.3, 0.45, 2.0):
        looked = values >= threshold
        missed = [(((own != r) & ~looked).sum()) / (own != r).sum() for r in raters]
        assert case.questions["zone"].losses[name].at(threshold) == pytest.approx(np.mean(missed))
        outer = [((r == 1) & ~(own | looked)).sum() / (r == 1).sum() for r in raters]
        assert case.questions["outer:disc"].losses[name].at(threshold) == pytest.approx(np.mean(outer))
        inner = [(own & ~looked & (r == 0)).sum() / own.sum() for r in raters]
        assert case.questions["inner:disc"].losses[name].at(threshold) == pytest.approx(np.mean(inner))
        assert case.questions["zone"].looked_at(name, threshold) == pytest.approx(looked.mean(), abs=0.02)
        assert case.questions["outer:disc"].looked_at(name, threshold) == pytest.approx((looked & ~own).mean(), abs=0.02)
    probability = np.asarray(found.probs[..., 0], np.float64)
    missed = [((r == 1) & ~own & (probability < 0.3)).sum() / (r == 1).sum() for r in raters]
    assert case.questions["outer:disc"].losses[PROBABILITY].at(0.3) == pytest.approx(np.mean(missed))
    false = [(own & (1 - found.probs[..., 0] < 0.3) & (r == 0)).sum() / own.sum() for r in raters]
    assert case.questions["inner:disc"].losses[PROBABILITY].at(0.3) == pytest.approx(np.mean(false))
    total = case.errors[name].sum(1)
    assert total[2] == raters[0].size and total[1] == pytest.approx(np.mean([own != r for r in raters]) * raters[0].size)


def test_what_a_rater_left_out_or_nobody_shows_does_not_count() -> None:
    found, raters = findings(4)
    partly = raters.copy()
    partly[1] = -1
    alone, both = gather(found, raters[:1]), gather(found, partly)
    assert both.questions["zone"].losses["softmax"].at(0.4) == alone.questions["zone"].losses["softmax"].at(0.4)
    assert both.dice == alone.dice == mean_dice(found, raters[:1]) and not both.volumes and alone.volumes
    empty = gather(found, np.zeros_like(raters))
    assert "outer:disc" not in empty.questions and empty.dice == 0 and empty.volumes["disc"][2] == 0
    right = gather(found, found.segmentation[None])
    assert "zone" not in right.questions and right.dice == 1
    with pytest.raises(ValueError, match="expected masks of"):
        gather(found, raters[:, :5])


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_statements_hold_over_random_splits_though_maps_are_chosen(alpha: float) -> None:
    """One case of the others is the next one; the choice of map, score and curve takes part in every split."""
    cases, rng = known(90), np.random.default_rng(1)
    missed: dict[str, list[float]] = {}
    chosen = set()
    for _ in range(300):
        order = rng.permutation(len(cases))
        found, case = find_statements([cases[i] for i in order[:60]], alpha=alpha), cases[order[60]]
        assert len(found.choosing) == 20
        chosen.add(found.limits["zone"].map)
        for key, limit in found.limits.items():
            missed.setdefault(key, []).append(case.questions[key].losses[limit.map].at(limit.threshold))
        missed.setdefault("volume", []).append(outside(*case.volumes["disc"]) > found.volumes["disc"][0])
        assert found.dice is not None
        below = found.dice.curve(case.scores["samples"]) - found.dice.below
        missed.setdefault("dice", []).append(case.dice < below)
    assert chosen == {"softmax"}
    assert set(missed) == {"zone", "outer:disc", "inner:disc", "volume", "dice"}
    for key, losses in missed.items():
        assert np.mean(losses) <= binomial_band(alpha, len(losses))[1], key


def test_a_guarantee_goes_into_a_file_and_back_and_says_the_same() -> None:
    guarantee = calibrate(known(40, rank=3), alpha=0.1, known={"model": "m"})
    again = guarantee_of(json.loads(json.dumps(plain(guarantee.to_dict()))), where="file")
    assert again == guarantee and again.notes == ()
    found, _ = findings(99, rank=3)
    one, two = apply_guarantee(guarantee, found), apply_guarantee(again, found, least_dice=0.99)
    assert one.zone is not None and two.zone is not None and one.error is not None and two.error is not None
    np.testing.assert_array_equal(one.zone, two.zone)
    np.testing.assert_array_equal(one.error, two.error)
    assert "look" not in one.figures and two.figures["look"] is True
    limit, bounds = guarantee.limits, one.bounds["disc"]
    own = found.segmentation == 1
    np.testing.assert_array_equal(one.zone, found.maps[limit["zone"].map].astype(np.float64) >= limit["zone"].threshold)
    share = found.probs[..., 0]
    outer, inner = ({**found.maps, PROBABILITY: p}[limit[f"{k}:disc"].map] for k, p in (("outer", share), ("inner", 1 - share)))
    np.testing.assert_array_equal(bounds > OUTSIDE, own | (outer.astype(np.float64) >= limit["outer:disc"].threshold))
    np.testing.assert_array_equal(bounds == INSIDE, own & (inner.astype(np.float64) < limit["inner:disc"].threshold))
    assert (bounds == BETWEEN).any() and (bounds == INSIDE).any()
    assert one.figures["structures"]["disc"]["inner_pixels"] == (bounds == INSIDE).sum()
    low, high = one.figures["structures"]["disc"]["pixels"]
    assert low < found.volume_range[0, 0] < found.volume_range[0, 1] < high
    assert one.figures["review_share"] == one.zone.mean()
    order = np.argsort(found.maps[guarantee.errors.map].ravel())  # type: ignore[union-attr]
    assert (np.diff(one.error.ravel()[order]) >= 0).all()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"format": 1}, "expected a guarantee that `quam-jax calibrate` has written"),
        ({"format": FORMAT}, "a damaged guarantee"),
        ({"format": FORMAT, "alpha": "much"}, "a damaged guarantee"),
    ],
)
def test_other_files_are_no_guarantee(record: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        guarantee_of(record, where="file")
    whole = plain(calibrate(known(10), alpha=0.1).to_dict())
    with pytest.raises(ValueError, match="a damaged guarantee"):
        guarantee_of({**whole, "errors": {**whole["errors"], "x": [1.0, 0.0], "y": [0.0, 0.0]}}, where="file")


def test_too_few_cases_say_how_many_it_takes() -> None:
    cases = known(30)
    with pytest.raises(ValueError, match="alpha 0.1 takes 9 cases or more, got 8"):
        calibrate(cases[:8])
    few = calibrate(cases[:10])
    assert few.limits["zone"].map == "useless" and few.limits["zone"].compared == {} and few.chosen_on == ()
    assert any("no map was chosen, which takes 27 cases at alpha 0.1" in note for note in few.notes)
    assert calibrate(cases[:10], map_name="softmax").limits["zone"].map == "softmax"
    assert calibrate(cases[:26]).chosen_on == ()
    enough = calibrate(cases[:27])
    assert len(enough.chosen_on) == 9 and enough.limits["zone"].cases == 18 and enough.limits["zone"].map == "softmax"
    assert set(enough.limits["zone"].compared) == {"useless", "softmax"}
    with pytest.raises(ValueError, match="map: expected one of useless, softmax, got 'total'"):
        calibrate(cases, map_name="total")
    nobody = [case._replace(volumes={"disc": (3.0, 4.0, 0.0)}) for case in cases]
    assert any("no rater shows it" in note for note in calibrate(nobody).notes)
    rare = [case if k < 5 else case._replace(questions={"zone": case.questions["zone"]}) for k, case in enumerate(cases)]
    found = calibrate(rare)
    assert set(found.limits) == {"zone"} and any(note.startswith("outer:disc: no statement") for note in found.notes)


def test_of_a_patient_one_case_counts_and_the_order_of_cases_does_not() -> None:
    cases = [case._replace(patient=f"p{k // 2}") for k, case in enumerate(known(60))]
    assert len(draw_patients(cases)) == 30
    assert draw_patients(cases) == draw_patients(cases[::-1])
    choosing, rest = deal(draw_patients(cases), 0.1)
    assert not {case.patient for case in choosing} & {case.patient for case in rest}
    right = [case._replace(questions={}) for case in known(60, seed=500)]  # most errors stand where the hashes come first
    first = [case._replace(sha256=f"0{k:05d}", patient="") for k, case in enumerate(known(30))]
    last = [case._replace(name=f"r{k}", sha256=f"9{k:05d}", patient="") for k, case in enumerate(right)]
    assert deal(draw_patients([*first, *last]), 0.1)[0] == []
    one, two = calibrate(cases), calibrate(cases[::-1])
    assert dataclasses.replace(one, cases=(), errors=None) == dataclasses.replace(two, cases=(), errors=None)
    twice = [*cases, cases[0]._replace(name="again", patient="other")]
    assert len(draw_patients(twice)) == 30
    with pytest.raises(ValueError, match="on patients in which something is wrong: alpha 0.1 takes 9 cases or more, got 5"):
        calibrate(cases[:10])


def test_the_curve_is_that_of_isotonic_regression() -> None:
    rng = np.random.default_rng(0)
    x, weights = np.round(rng.random(200), 2), rng.integers(1, 9, 200).astype(float)
    y = np.clip(x**2 + rng.normal(0, 0.2, 200), 0, 1)
    reference = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y, sample_weight=weights)
    at = np.linspace(-0.2, 1.2, 101)
    np.testing.assert_allclose(fit_curve(x, y, weights)(at), reference.predict(at), atol=1e-12)


def test_the_error_map_is_reliable_on_cases_left_out() -> None:
    errors = calibrate(known(40), map_name="softmax").errors
    assert errors is not None and errors.gap < 0.02
    assert all(abs(predicted - observed) < 0.15 for predicted, observed, _ in errors.reliability)
    assert sum(pixels for *_, pixels in errors.reliability) == 40 * 144


def test_ranges_and_scores_by_hand() -> None:
    assert outside(9, 19, 19) == 0 and outside(9, 19, 39) == pytest.approx(np.log(2)) == outside(19, 39, 9)
    assert widened(9, 19, np.log(2)) == (pytest.approx(4), pytest.approx(39)) and widened(0, 0, 0) == (0, 0)
    labels, model = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    probs = np.array([0.2, 0.9, 0.7, 0.2])[:, None]
    found = scores_of(labels, [model], probs, ONE)
    assert found == {"samples": pytest.approx(2 / 3), "probabilities": pytest.approx(3.2 / 4)}
    assert list(scores_of(labels, [], probs, ONE)) == ["probabilities"]
    assert np.isnan(scores_of(labels * 0, [], probs * 0, ONE)["probabilities"])
