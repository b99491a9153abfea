"""Which cases a study has: parts without overlap, dealt by patient and name, and pictures that are shifted or rendered."""

import numpy as np
import pytest

from benchmarks.real_cases import block_mean, deal
from benchmarks.rendered import PARTS, part_of, parts_of, share_of
from quam_jax.data.patients import patient_of
from quam_jax.data.rendered import nodule_opacity, render
from quam_jax.studies.shifts import parse_shift, shifted
from quam_jax.studies.splits import Identity, check_disjoint


def test_parts_that_share_an_image_a_name_or_a_patient_are_refused_by_name() -> None:
    one, other = Identity("a", "p1", "11"), Identity("b", "p2", "22")
    check_disjoint({"train": [one], "fit": [one], "test": [other]})  # training cases may be fit cases
    for wrong, what in (
        (other._replace(sha256="11"), "image"),
        (other._replace(name="a"), "case name"),
        (other._replace(patient="p1"), "patient"),
    ):
        with pytest.raises(ValueError, match=f"fit and test cases: expected no overlap, got the same {what} in a"):
            check_disjoint({"fit": [one], "test": [wrong]})
    with pytest.raises(ValueError, match="validation and test"):
        check_disjoint({"validation": [one], "test": [one]})


def test_patients_come_from_the_name() -> None:
    assert patient_of("LIDC-0001-n7", r"^(LIDC-\d+)-") == "LIDC-0001"
    assert patient_of("LIDC-0001-n7", r"LIDC-\d+") == "LIDC-0001"
    assert patient_of("x", None) == "x"
    with pytest.raises(ValueError, match="case x: expected a patient"):
        patient_of("x", r"\d+")


def test_parts_are_dealt_by_patient_and_seed_and_smaller_training_sets_are_nested() -> None:
    patients = [f"LIDC-IDRI-{n:04d}" for n in range(2000)]
    parts = [part_of(p, seed=5) for p in patients]
    assert parts.count("test") / 2000 == pytest.approx(PARTS["test"], abs=0.03)
    assert parts != [part_of(p) for p in patients] and part_of("x") == part_of("x", seed=0)
    folders = [parts_of(p, seed=5, fit=False) for p in patients]
    training = [f for f in folders if "train" in f]
    assert all("train50" in f for f in training if "train25" in f)
    assert sum("train25" in f for f in training) / len(training) == pytest.approx(0.25, abs=0.03)
    assert all(f in (("validation",), ("test",)) for f in folders if "train" not in f)
    assert 0 <= share_of("x", seed=1) < 1


def test_cells_are_shrunk_by_blocks_and_dealt_by_name() -> None:
    np.testing.assert_array_equal(block_mean(np.arange(20).reshape(4, 5), 2), [[3, 5], [13, 15]])  # the last column is cut off
    parts = deal([f"B{n}" for n in range(24)])
    assert [list(parts.values()).count(p) for p in ("train", "validation", "test")] == [10, 4, 10]
    assert parts == deal([f"B{n}" for n in reversed(range(24))])


def test_shifts_by_hand() -> None:
    x = np.array([[[0.0], [2.0]]], np.float32)  # mean 1, standard deviation 1
    np.testing.assert_array_equal(shifted(x, "none", seed=0), x)
    np.testing.assert_allclose(shifted(x, "brightness:2", seed=0), x + 1)
    np.testing.assert_allclose(shifted(x, "contrast:2", seed=0)[..., 0], [[0.5, 1.5]])  # deviations halved
    large = np.random.default_rng(0).normal(size=(64, 64, 1)).astype(np.float32)
    assert shifted(large, "noise:2", seed=1).std() == pytest.approx(np.sqrt(1 + 0.25), rel=0.03)
    np.testing.assert_array_equal(shifted(large, "noise:2", seed=1), shifted(large, "noise:2", seed=1))
    assert shifted(large, "blur:1", seed=0).std() < 0.6
    for wrong in ("fog:1", "noise", "noise:0", "noise:x"):
        with pytest.raises(ValueError, match="shift: expected KIND:STRENGTH"):
            parse_shift(wrong)


@pytest.mark.usefixtures("unchecked")
def test_renderings_show_the_mean_or_the_majority() -> None:
    raters = np.zeros((4, 32, 32), int)
    raters[:, 8:24, 8:16] = 1
    raters[:1, 8:24, 16:24] = 1  # one of four drew the right half
    raters[:2, 24:28, 8:16] = 1  # two of four: a tie is no majority, as in the consensus
    crisp = nodule_opacity(raters, rendering="crisp")
    assert set(np.unique(crisp)) == {0, 1} and crisp[26, 10] == 0 and crisp[12, 10] == 1 and crisp[12, 20] == 0
    assert nodule_opacity(raters, rendering="soft")[14, 19] == pytest.approx(0.25, abs=0.05)
    one, same = (render(raters, rendering="soft", seed=1) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert one[8:24, 8:16].mean() > one[8:24, 17:23].mean() > one[:, 28:].mean() - 40
    with pytest.raises(ValueError, match="rendering: expected soft or crisp"):
        render(raters, rendering="sharp", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="raters: expected masks of 0 and 1"):
        render(raters * 2, rendering="soft", seed=0)
