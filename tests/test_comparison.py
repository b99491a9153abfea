"""Two dates of one patient: the bound behind the rule, the rule on objects whose truth is known, and runs on disk."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage
from scipy.special import expit, ndtr, rel_entr

from quam_jax.cli.commands import cli
from quam_jax.evaluation.statistics import holm
from quam_jax.report.comparison_page import exceeding
from quam_jax.results.compare_runs import CompareRequest, compare_runs
from quam_jax.results.comparison import (
    Date,
    compare,
    connected_changes,
    explained,
    inside_grid,
    resample,
    variance_bound,
    volume_change,
)
from tests.compared_runs import write_run
from tests.test_alignment import turned

SIDE = 18
GRID = np.indices((SIDE,) * 3) - (SIDE - 1) / 2
MODELS = np.linspace(-2, 2, 8)  # where the adversarial models put the boundary, in standard deviations


def date(
    seed: int, *, radius: float = 4.0, sigma: float = 0.35, shift: float = 0.0, noise: float = 0.0, lesion: bool = False
) -> Date:
    """A ball whose boundary the given network misplaces by sigma voxels (one sd), and the models by up to two sd more."""
    rng = np.random.default_rng(seed)
    depth = radius - np.sqrt((GRID[0] - shift) ** 2 + GRID[1] ** 2 + GRID[2] ** 2)
    if lesion:
        depth = np.maximum(depth, 3 - np.sqrt(((GRID + 6) ** 2).sum(0)))
    wrong = sigma * (rng.normal() + np.concatenate([[0.0], MODELS]))
    inside = expit((depth + wrong[:, None, None, None] + noise * rng.normal(size=depth.shape)) / 0.5)
    probs = np.stack([1 - inside, inside], -1)
    mean = probs.mean(0)
    return Date(probs[0].astype(np.float32), (inside[0] > 0.5).astype(np.int32), rel_entr(probs, mean).sum(-1).mean(0))


def found(before: dict[str, float], after: dict[str, float], *, seeds: int = 20) -> float:
    """The share of patients in whom some change exceeds uncertainty."""
    hits = [any(c.exceeds for c in compare(date(s, **before), date(1000 + s, **after)).changes) for s in range(seeds)]  # type: ignore[arg-type]
    return float(np.mean(hits))


def test_the_epistemic_map_bounds_the_variance_of_every_set_of_labels() -> None:
    rng = np.random.default_rng(0)
    closest = np.inf
    for sharpness in (0.1, 1.0, 8.0):
        probs = rng.dirichlet(np.full(3, 1 / sharpness), (500, 6))  # [pixels models classes]
        weights = rng.dirichlet(np.ones(6), 500)
        mean = np.einsum("pm,pmc->pc", weights, probs)
        information = np.einsum("pm,pmc->p", weights, rel_entr(probs, mean[:, None]))
        around = np.einsum("pm,pmc->p", weights, rel_entr(mean[:, None], probs))
        for chosen in ([0], [1], [2], [0, 1], [1, 2]):
            spread = np.einsum("pm,pm->p", weights, (probs[..., chosen].sum(-1) - mean[:, None, chosen].sum(-1)) ** 2)
            assert (spread <= variance_bound(information) + 1e-12).all() and (spread <= variance_bound(around) + 1e-12).all()
            closest = min(closest, float((variance_bound(information) / np.maximum(spread, 1e-12)).min()))
    assert closest < 1.1  # a bound that is nearly reached


def test_chance_and_holm_by_hand() -> None:
    # (0.5 - 0.1)/0.2 = 2 standard deviations; Phi(-2) = 0.02275
    assert float(explained(np.array(0.5), np.array(0.04), least=0.1)) == pytest.approx(0.0227501, abs=1e-6)
    np.testing.assert_array_equal(explained(np.array([0.1, 0.5]), np.array([0.0, 0.0]), least=0.1), [1.0, 0.0])
    # 0.05/3, 0.05/2, 0.05/1: the second smallest is 0.03 > 0.025, so that the third does not count either
    np.testing.assert_array_equal(holm(np.array([0.04, 0.01, 0.03])) <= 1 - 0.95, [False, True, False])
    np.testing.assert_array_equal(holm(np.array([0.04, 0.01, 0.02])) <= 1 - 0.95, [True, True, True])


def test_a_change_by_hand() -> None:
    probs = np.zeros((2, 1, 4, 2), np.float32)
    probs[0, 0, :, 1], probs[1, 0, :, 1] = (0.9, 0.2, 0.3, 0.1), (0.9, 0.8, 0.9, 0.1)
    probs[..., 0] = 1 - probs[..., 1]
    epistemic = np.array([[0, 0.02, 0.08, 0]])
    dates = [Date(p, (p[..., 1] > 0.5).astype(np.int32), epistemic) for p in probs]
    result = compare(*dates)
    np.testing.assert_array_equal(result.numbers, [[0, 1, 1, 0]])
    (change,) = result.changes
    # shift (0.6 + 0.6)/2; spreads 0.1 and 0.2 a date, mean 0.15, two dates: 0.15 * sqrt(2) = 0.2121
    assert (change.before, change.after, change.voxels) == (0, 1, 2)
    assert change.shift == pytest.approx(0.6, abs=1e-6) and change.spread == pytest.approx(0.212132, abs=1e-6)
    assert change.probability == pytest.approx(ndtr(0.5 / 0.212132), abs=1e-6) and change.exceeds  # 0.9908
    np.testing.assert_array_equal(result.verdict, [[0, 2, 2, 0]])
    assert change.peak == (0, 1)
    # each voxel by itself: (0.6 - 0.1)/sqrt(0.02) and (0.6 - 0.1)/sqrt(0.08)
    np.testing.assert_allclose(result.probability, [[0, ndtr(3.535534), ndtr(1.767767), 0]], atol=1e-6)
    unsure = compare(*dates, level=0.995)
    assert not unsure.changes[0].exceeds and set(np.unique(unsure.verdict)) == {0, 1}
    assert compare(*dates, seen=np.array([[True, False, False, True]])).changes == ()
    backwards = compare(*dates[::-1])
    assert (backwards.changes[0].before, backwards.changes[0].after) == (1, 0)
    assert backwards.changes[0].shift == pytest.approx(change.shift)


def test_without_a_change_few_patients_have_one() -> None:
    assert found({}, {}) <= 0.05
    assert found({"sigma": 0.7}, {"sigma": 0.7}) <= 0.05
    assert found({"noise": 0.2}, {"noise": 0.2}) <= 0.05


def test_growth_and_shift_are_found_as_far_as_the_models_leave_no_doubt() -> None:
    by_growth = [found({}, {"radius": 4.0 + more}) for more in (0, 1, 2, 3)]
    assert by_growth[0] <= 0.05 and by_growth[2] >= 0.8 and by_growth[3] == 1.0 and by_growth == sorted(by_growth)
    unsure = [found({"sigma": 0.7}, {"sigma": 0.7, "radius": 4.0 + more}) for more in (1, 3, 4)]
    assert unsure == sorted(unsure) and unsure[0] < by_growth[1] + 0.05 and unsure[2] >= 0.9
    assert found({}, {"shift": 3.0}) >= 0.9 and found({}, {"radius": 2.0}) >= 0.8


def test_a_new_structure_is_found_where_it_is() -> None:
    hits = 0
    for seed in range(12):
        result = compare(date(seed, noise=0.1), date(1000 + seed, noise=0.1, lesion=True))
        hits += any(c.exceeds and c.after == 1 and max(c.peak) < SIDE // 2 for c in result.changes)
    assert hits >= 11


def test_labels_that_touch_are_changes_of_their_own() -> None:
    before, after = np.zeros((6, 6), int), np.zeros((6, 6), int)
    before[1:3, 1:4], after[1:3, 1:4] = 1, 2
    after[3, 1] = 2  # was background: another change, though connected
    before[5, 5] = 2
    numbers = connected_changes(before, after, seen=np.ones((6, 6), bool))
    assert [int((numbers == n).sum()) for n in range(4)] == [28, 6, 1, 1]
    with pytest.raises(ValueError, match="level: expected"):
        compare(date(0), date(1), level=1.0)
    with pytest.raises(ValueError, match="least: expected"):
        compare(date(0), date(1), least=1.0)
    with pytest.raises(ValueError, match="expected two dates on one grid"):
        compare(date(0), date(1)._replace(probs=np.zeros((SIDE, SIDE, SIDE, 3))))


def test_intervals_of_volumes_by_hand() -> None:
    # 10 [9, 12] to 15 [11, 18]: 5 - sqrt(4^2 + 2^2), 5 + sqrt(3^2 + 1^2)
    np.testing.assert_allclose(volume_change((10, 9, 12), (15, 11, 18)), (5, 5 - 20**0.5, 5 + 10**0.5))
    assert volume_change((3, 3, 3), (3, 3, 3)) == (0, 0, 0)
    rng = np.random.default_rng(0)
    low, high = np.array(
        [volume_change((a, a - 1.96, a + 1.96), (b, b - 1.96, b + 1.96))[1:] for a, b in rng.normal(0, 1, (4000, 2)) + [7, 9]]
    ).T
    assert ((low <= 2) & (high >= 2)).mean() == pytest.approx(0.95, abs=0.015)


def test_another_grid_is_read_in_its_own_place() -> None:
    rng = np.random.default_rng(0)
    array = ndimage.gaussian_filter(rng.normal(size=(9, 8, 7)), 1).astype(np.float32)
    whole = np.eye(4)
    whole[:3, 3] = (2, -1, 0)
    moved = resample(array, whole, (5, 6, 7), outside=-9.0)
    np.testing.assert_allclose(moved[:, 1:], array[2:7, :5], atol=1e-6)
    assert (moved[:, 0] == -9).all()
    there = inside_grid(whole, (5, 6, 7), array.shape)
    np.testing.assert_array_equal(there, moved != -9)


AFFINE = np.array([[0.0, -1, 0, 4], [1.5, 0, 0, 5], [0, 0, 2, 6], [0, 0, 0, 1]])


def test_two_runs_on_one_grid(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", date(0), affine=AFFINE)
    after = write_run(tmp_path / "b", date(1000, radius=7.0), affine=AFFINE)
    done = CliRunner().invoke(cli, ["compare", str(before), str(after), "--out", str(tmp_path / "out")], obj={})
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    direct = compare(date(0), date(1000, radius=7.0))
    assert [exceeding(k, 4).split(" changes ")[1].split()[0] for k in (0, 1, 2)] == ["exceed", "exceeds", "exceed"]
    count, more = len(record["changes"]), sum(row["exceeds"] == "yes" for row in record["changes"])
    assert exceeding(more, count) in (tmp_path / "out" / "comparison.html").read_text() and exceeding(more, count) in done.output
    assert len(record["changes"]) == len(direct.changes) and record["changes"][0]["exceeds"] == "yes"
    assert record["changes"][0]["volume_ml"] == pytest.approx(direct.changes[0].voxels * 3e-3)
    volume = record["structures"]["organ"]
    assert volume["change_ml"] == pytest.approx((date(1000, radius=7.0).labels.sum() - date(0).labels.sum()) * 3e-3)
    assert volume["change_low_ml"] < volume["change_ml"] < volume["change_high_ml"] and volume["exceeds"] == "yes"
    for key, expected in (("numbers", direct.numbers), ("verdict", direct.verdict), ("probability", direct.probability)):
        stored = nib.load(tmp_path / "out" / record["outputs"][key])
        np.testing.assert_allclose(stored.get_fdata(), expected, atol=1e-6)
        np.testing.assert_allclose(stored.affine, AFFINE)
    assert (tmp_path / "out" / "changes.csv").read_text().splitlines()[0].startswith("change,before,after,voxels")
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "data:image/png;base64," in page and "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert record["notes"] == []


def test_a_run_against_itself_has_no_change(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", date(0), affine=AFFINE)
    told: list[tuple[str, int, int]] = []
    request = CompareRequest(run, run / "p.json", tmp_path / "out")
    result = compare_runs(request, progress=lambda *values: told.append(values))
    assert [counts for _, *counts in told] == [[n, 4] for n in range(5)] and told[0][0] == ""
    assert result.record["changes"] == [] and not result.compared.probability.any()
    assert result.record["structures"]["organ"]["change_ml"] == 0 and result.page.is_file()


def test_two_grids_with_an_affine(tmp_path: Path) -> None:
    moment = date(0)
    before = write_run(tmp_path / "a", moment, affine=AFFINE)
    # the patient lies 3 mm further along x and 4 mm up, and the second scan cuts off two slices on one side
    moved = AFFINE.copy()
    world = np.eye(4)
    world[:3, 3] = (3, 0, 4)
    moved[:3, 3] = (world @ AFFINE @ [2, 0, 0, 1])[:3]
    cut = Date(moment.probs[2:], moment.labels[2:], moment.epistemic[2:])
    after = write_run(tmp_path / "b", cut, affine=moved)
    with pytest.raises(ValueError, match="give the way from one to the other with --affine"):
        compare_runs(CompareRequest(before, after, tmp_path / "out"))
    np.savetxt(tmp_path / "affine.txt", world)
    result = compare_runs(CompareRequest(before, after, tmp_path / "out", affine=tmp_path / "affine.txt"))
    assert result.record["changes"] == [] and float(result.compared.probability.max()) < 1e-3
    assert any("lies outside the follow-up" in note for note in result.record["notes"])
    np.savetxt(tmp_path / "far.txt", world + np.array([[0, 0, 0, 900.0]] + [[0] * 4] * 3))
    with pytest.raises(ValueError, match="no common voxel"):
        compare_runs(CompareRequest(before, after, tmp_path / "out2", affine=tmp_path / "far.txt"))


def test_a_date_with_axes_of_its_own_is_turned_exactly(tmp_path: Path) -> None:
    one, two = date(0), date(1000, radius=7.0)
    before = write_run(tmp_path / "a", one, affine=AFFINE)
    plain = compare_runs(CompareRequest(before, write_run(tmp_path / "b", two, affine=AFFINE), tmp_path / "plain"))
    turn = ((1, 2, 0), (True, False, True))
    probs, affine = turned(two.probs, AFFINE, *turn)
    other = Date(*(np.ascontiguousarray(x) for x in (probs, *(turned(y, AFFINE, *turn)[0] for y in (two.labels, two.epistemic)))))
    after = write_run(tmp_path / "c", other, affine=affine)
    result = compare_runs(CompareRequest(before, after, tmp_path / "out"))
    np.testing.assert_array_equal(result.compared.numbers, plain.compared.numbers)
    np.testing.assert_array_equal(result.compared.probability, plain.compared.probability)
    assert any("was brought to the grid of the baseline: its axes run" in note for note in result.record["notes"])


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", date(0), affine=AFFINE)
    other = write_run(tmp_path / "b", date(1), affine=AFFINE, names=("tumour",), model="n")
    for request, text in (
        (CompareRequest(tmp_path, run, tmp_path / "o"), "expected the folder of a run"),
        (CompareRequest(run, run, tmp_path / "o", case="x"), "expected a finished case x, got p"),
        (CompareRequest(run, other, tmp_path / "o"), "labels background, organ, got background, tumour"),
        (CompareRequest(run, run, run), "expected a new or empty folder"),
        (CompareRequest(run, run, tmp_path / "o", affine=run / "run.json"), "expected a text of 4 rows"),
        (CompareRequest(run, run, tmp_path / "o", level=0), "level: expected"),
    ):
        with pytest.raises(ValueError, match=text) as error:
            compare_runs(request)
        assert "\n" not in str(error.value) and not (tmp_path / "o").exists()
    (tmp_path / "bad.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 0 0\n0 0 0 1\n")
    with pytest.raises(ValueError, match="can be inverted"):
        compare_runs(CompareRequest(run, run, tmp_path / "o", affine=tmp_path / "bad.txt"))
    (run / "p_desc-epistemic_uncertainty.nii.gz").unlink()
    with pytest.raises(ValueError, match="got none for epistemic"):
        compare_runs(CompareRequest(run, run, tmp_path / "o"))


def test_other_models_are_noted_and_an_earlier_comparison_is_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", date(0), affine=AFFINE)
    other = write_run(tmp_path / "b", date(1)._replace(epistemic=np.zeros((SIDE,) * 3)), affine=AFFINE, model="n")
    notes = compare_runs(CompareRequest(run, other, tmp_path / "o")).record["notes"]
    assert any("different models" in note for note in notes) and any("zero everywhere" in note for note in notes)
    with pytest.raises(ValueError, match="--overwrite"):
        compare_runs(CompareRequest(run, run, tmp_path / "o"))
    assert compare_runs(CompareRequest(run, run, tmp_path / "o", overwrite=True)).record["notes"] == []
