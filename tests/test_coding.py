"""One table of regions, classes and labels: tables drawn by hand and at random, against nnU-Net's rule written as a loop."""

import numpy as np
import pytest
from scipy.special import expit, logit

from quam_jax.evaluation import overlap
from quam_jax.models.coding import Coding

KITS = Coding(4, ((1, 2, 3), (2, 3), (2,)), (1, 3, 2), ("kidney", "masses", "tumor"))
PEDS = Coding(5, ((1, 2, 3, 4), (1, 2, 3), (1,)), (1, 2, 3), ("whole", "core", "enhancing"))
GROUND = Coding(3, ((0, 1), (2,)), (1, 2), ("quiet", "loud"))  # the first region covers the background
APART = Coding(4, ((1, 2), (2, 3)), (1, 3), ("left", "right"))  # label 2 lies in both, which no region is written as


def random_table(seed: int) -> Coding:
    """Regions of labels 0..4 in any order that write any labels."""
    rng = np.random.default_rng(seed)
    regions = tuple(tuple(sorted(rng.choice(5, rng.integers(1, 5), replace=False).tolist())) for _ in range(rng.integers(1, 5)))
    order = tuple(rng.integers(1, 6, len(regions)).tolist()) if seed % 2 else tuple(max(region) for region in regions)
    return Coding(6, regions, order)


TABLES = [KITS, PEDS, GROUND, APART, *map(random_table, range(40))]


def written(coding: Coding, probs: np.ndarray) -> np.ndarray:
    """nnU-Net's rule: regions above one half write their label, one after the other."""
    labels = np.zeros(probs.shape[:-1], int)
    for r, label in enumerate(coding.order or ()):
        labels[probs[..., r] > 0.5] = label
    return labels


@pytest.mark.parametrize("coding", TABLES)
def test_what_is_written_is_nnunets(coding: Coding) -> None:
    regions = coding.channel_regions or ()
    logits = np.random.default_rng(1).normal(0, 2, (9, 8, len(regions)))
    probs = expit(logits)
    np.testing.assert_array_equal(coding.segment(logits), written(coding, probs))
    classes = coding.classify(logits)
    np.testing.assert_array_equal(coding.labels_of(classes), written(coding, probs))
    np.testing.assert_array_equal(coding.classify_channels(probs), classes)
    np.testing.assert_array_equal(coding.classify_classes(coding.class_probs(probs)), classes)
    # probabilities of labels: all ways to draw the regions, one by one
    drawn = np.stack([((np.arange(2 ** len(regions))[:, None] >> r) & 1)[:, 0] for r in range(len(regions))], -1)
    shares = np.prod(np.where(drawn == 1, probs[0, 0], 1 - probs[0, 0]), -1)
    labels = np.bincount(written(coding, drawn.astype(float)), shares, minlength=coding.labels)
    np.testing.assert_allclose(coding.label_probs(probs)[0, 0], labels, atol=1e-12)


@pytest.mark.parametrize("coding", TABLES)
def test_structures_are_regions(coding: Coding) -> None:
    """Of masks by their labels; of a prediction by the labels that it is written as, where they mean the same, else as it is."""
    regions = coding.channel_regions or ()
    rng = np.random.default_rng(2)
    masks, probs = rng.integers(-1, coding.labels, (9, 8)), rng.random((9, 8, len(regions)))
    of_masks, of_prediction = coding.classes_of(masks), coding.counted(coding.classify(logit(probs)))
    np.testing.assert_array_equal(of_masks == -1, masks == -1)
    labels = written(coding, probs)
    for r, (member, region) in enumerate(zip(coding.structures, regions, strict=True)):
        np.testing.assert_array_equal(overlap.in_structure(of_masks, member), np.isin(masks, region))
        expected = probs[..., r] > 0.5 if coding.contradictions else np.isin(labels, region)
        np.testing.assert_array_equal(overlap.in_structure(of_prediction, member), expected)
        share = probs[..., r] if coding.contradictions else coding.label_probs(probs)[..., list(region)].sum(-1)
        np.testing.assert_allclose(coding.structure_probs(probs)[..., r], share, atol=1e-12)
    counted = coding.counted_probs(coding.class_probs(probs))
    np.testing.assert_allclose(counted.sum(-1), 1)
    np.testing.assert_allclose(counted @ coding.structures.T, coding.structure_probs(probs), atol=1e-12)
    assert coding.class_of_label[0] == coding.background_first(np.array([0]))[0]
    classes = np.arange(coding.classes)
    np.testing.assert_array_equal(coding.background_first(coding.background_first(classes)), classes)


def test_orders_that_contradict_the_masks_are_told() -> None:
    assert KITS.contradictions == GROUND.contradictions == []
    assert PEDS.contradictions == ["1 of the masks is written as 3", "4 of the masks is written as 1"]
    assert [note for note in PEDS.notes if "regions_class_order" in note and "4 of the masks is written as 1" in note]
    assert KITS.notes == ()
    assert [text.split()[0] for text in APART.contradictions] == ["2"]
    # labels that regions do not tell apart are no contradiction
    assert Coding(4, ((1, 2, 3), (3,)), (1, 3)).contradictions == []


def test_names_of_what_is_written() -> None:
    assert KITS.label_names == ("background", "kidney outside masses, tumor", "tumor", "masses outside tumor")
    assert KITS.structure_names == ("kidney", "masses", "tumor")
    assert Coding(4, ((1, 2), (3,)), (1, 1), ("a", "b")).label_names == ("background", "a or b", "label 2", "label 3")
    assert Coding(3).label_names == ("class 0", "class 1", "class 2") and Coding(3).structure_names == ("class 1", "class 2")
    assert Coding.exclusive(2, ("sky", "tree")).structure_names == ("tree",)
    assert Coding.exclusive(2, ("tree",)).label_names == ("class 0", "class 1")
