"""Fit data: which cases are chosen, and how images of any sizes become batches."""

from pathlib import Path

import jax
import numpy as np
import pytest

from quam_jax.case.fit import choose_cases, read_fit_images
from quam_jax.config import FitConfig
from quam_jax.data.datasets import Case
from quam_jax.data.preprocess import Preprocessing, batch_fit
from quam_jax.data.spread import evenly_spread
from quam_jax.models.model import Network, SegmentationModel
from tests.planned import write
from tests.tiny import tiny_network


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (1, 4), (4, 4), (5, 4), (7, 3)])
@pytest.mark.parametrize("rank", [2, 3])
def test_fit_batches_hold_every_image_once(count: int, batch_size: int, rank: int) -> None:
    rng = np.random.default_rng(count)
    sizes = rng.integers(3, 9, (count, rank))
    images = [rng.random((*size, 2)).astype(np.float32) for size in sizes]
    labels = [rng.integers(0, 3, size) for size in sizes]
    stacked, marked = batch_fit(list(zip(images, labels, strict=True)), size=batch_size, multiple=4)
    padded = tuple(-(-sizes.max(axis=0) // 4) * 4)
    assert stacked.shape == (-(-count // batch_size), batch_size, *padded, 2) and stacked.dtype == np.float32
    assert marked.shape == stacked.shape[:-1] and marked.dtype == np.int32
    flat, flat_labels = stacked.reshape(-1, *padded, 2), marked.reshape(-1, *padded)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        kept = flat_labels[index] >= 0
        assert kept.sum() == label.size
        np.testing.assert_array_equal(flat_labels[index][kept].reshape(label.shape), label)
        np.testing.assert_array_equal(flat[index][kept].reshape(image.shape), image)
        assert flat[index][~kept].size == 0 or flat[index][~kept].min() >= image.min()  # border values, no zeros
    assert (flat_labels[count:] == -1).all() and (flat[count:] == 0).all()


def test_fit_batches_that_do_not_belong_together() -> None:
    image, label = np.zeros((4, 4, 1)), np.zeros((4, 4), int)
    for pairs, size, says in (
        ([], 1, "got none"),
        ([(image, label)], -1, "batch size of 0"),
        ([(image, label), (image, label[:3])], 1, "fit data 1: image of size"),
        ([(image, label), (np.zeros((4, 4, 3)), label)], 1, "fit data 1: shape"),
        ([(image, label), (np.zeros((4, 4, 4, 1)), np.zeros((4, 4, 4), int))], 1, "fit data 1: shape"),
    ):
        with pytest.raises(ValueError, match=says):
            batch_fit(pairs, size=size)


def test_a_batch_of_no_size_holds_all() -> None:
    stacked, marked = batch_fit([(np.zeros((4, 4, 1)), np.zeros((4, 4), int))] * 3)
    assert stacked.shape == (1, 3, 4, 4, 1) and marked.shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("count", "wanted", "places"),
    [(5, 0, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (5, 1, [0]), (5, 2, [0, 4]), (10, 4, [0, 3, 6, 9]), (8, 3, [0, 4, 7])],
)
def test_evenly_spread_by_hand(count: int, wanted: int, places: list[int]) -> None:
    assert evenly_spread(count, wanted).tolist() == places


def test_fit_cases_are_spread_over_those_with_masks() -> None:
    cases = [Case(f"c{n}", Path(f"c{n}.png"), {"rater": Path(f"c{n}_m.png")}) for n in range(8)]
    assert [case.name for case in choose_cases(cases, Path("masks"), settings=FitConfig(fit_cases=3))] == ["c0", "c4", "c7"]
    with pytest.raises(ValueError, match="masks: expected a mask for every fit image, got none for c2"):
        choose_cases([*cases[:2], cases[2]._replace(raters={}), *cases[3:]], Path("masks"), settings=FitConfig(fit_cases=2))


@pytest.mark.parametrize(
    ("shown", "wanted", "taken"),
    [((1, 2, 4), 0, (1, 2, 4)), ((1, 2, 4), 2, (1, 4)), ((), 3, (0, 2, 5))],
    ids=["all with foreground", "the first and the last of them", "any where there is none"],
)
def test_slices_of_fit_volumes_show_foreground(
    tmp_path: Path, shown: tuple[int, ...], wanted: int, taken: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).standard_normal((8, 12, 6)).astype(np.float32)
    mask = np.zeros(image.shape, np.uint8)
    mask[2, 3, list(shown)] = 1
    case = Case("a", write(tmp_path / "a.nii.gz", image, np.eye(4)), {"r": write(tmp_path / "a_m.nii.gz", mask, np.eye(4))})
    with tiny_network():
        network = Network.create("tiny", in_channels=1, n_classes=2)
        model = SegmentationModel(network, *network.initialise(jax.random.key(0)))
        preprocessing = Preprocessing(normalise="none", channels=1)
        settings = FitConfig(fit_cases=wanted)
        known = read_fit_images([case], tmp_path, model=model, preprocessing=preprocessing, settings=settings)
    np.testing.assert_allclose(known.images[0, ..., 0], np.moveaxis(image[..., list(taken)], -1, 0), rtol=1e-6)
    np.testing.assert_array_equal(known.labels[0], np.moveaxis(mask[..., list(taken)], -1, 0))
