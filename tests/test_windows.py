"""Images that are cut into patches: where they are cut, and that the parts are put together as the whole and as a plan does."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from quam_jax.case.masks import wanted_in_blocks
from quam_jax.case.patches import LabelBand
from quam_jax.case.quantified import Quantified, audit_rows
from quam_jax.case.quantify import quantify_images
from quam_jax.case.shared import planned_model, whole_image_model
from quam_jax.case.windows import WHOLE, describe_windows, lay_windows
from quam_jax.config import Config, PatchConfig, SearchConfig, TargetConfig, change
from quam_jax.data.patches import lay_patches, weight_sum
from quam_jax.models.coding import Coding
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.predict import fit_data
from tests.planned import plan_of, record
from tests.tiny import NO_VIEWS, tiny_fit, tiny_model, tiny_network
from tests.volume_by_hand import AS_READ, geometry_of, tiny_fold

MASKS = Config(
    samples=NO_VIEWS,
    targets=TargetConfig(shapes=("dilate", "other_class"), element="disk"),
    search=SearchConfig(steps=2, learning_rate=0.02),
)
HEADS = SearchConfig(space="head", members=2, steps=3, learning_rate=0.2, slack=0.2, fit_points=0)
ASKED = {
    "mask": MASKS,
    "pixel": Config(targets=TargetConfig(target="pixel", pixels="uncertain", pixel_count=25), search=HEADS),
    "region": Config(targets=TargetConfig(target="region", regions="tiles", region_size=5, element="disk"), search=HEADS),
    "noise": dataclasses.replace(MASKS, search=SearchConfig(steps=2, learning_rate=0.02, mode="train")),
}
ARRAYS = ("reference", "segmentation", "total", "aleatoric", "epistemic", "softmax", "adversarial")


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    with tiny_network():
        yield


def cut(config: Config, size: str, step: float = 0.5) -> Config:
    return change(config, {"patch_size": size, "patch_step": step})


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def find(image: np.ndarray, config: Config, *, drop: float = 0.0) -> Quantified:
    model = tiny_model(classes=3, drop=drop)
    return quantify_images(whole_image_model(model, tiny_fit(model), config.search), [image], config=config)[0]


# where an image is cut


def plain_model(*, multiple_of: str = "att_unet", **manifest: object) -> SegmentationModel:
    network = Network.create(multiple_of, in_channels=1, n_classes=2)
    return SegmentationModel(network, {}, {}, dict(manifest))


@pytest.mark.parametrize(
    ("space", "patch"),
    [
        ((1024, 811), (1024, 811)),
        ((1280, 960), (1280, 960)),
        ((2048, 1024), (2048, 1024)),
        ((2048, 1025), (512, 512)),
        ((8192, 8192), (512, 512)),
        ((3, 70000), (3, 70000)),
        ((100, 70000), (100, 512)),
        ((1, 1), (1, 1)),
    ],
)
def test_an_image_stays_whole_up_to_two_megapixels(space: tuple[int, ...], patch: tuple[int, ...]) -> None:
    assert lay_windows(plain_model(), space, PatchConfig()).patch == patch
    assert 2048 * 1024 == WHOLE


def test_patches_have_the_size_of_training_where_it_is_known() -> None:
    model = plain_model(training={"size": [250, 300]})
    assert lay_windows(model, (2000, 2000), PatchConfig()).patch == (256, 304)  # what the network takes
    assert lay_windows(model, (1000, 1000), PatchConfig()).patch == (1000, 1000)
    for known in ({"size": None}, {"settings": {}}, {"size": [64]}, "unknown"):
        assert lay_windows(plain_model(training=known), (2000, 2000), PatchConfig()).patch == (512, 512)


def test_a_network_of_one_size_gets_patches_of_it() -> None:
    network = Network.create("swin_unet", in_channels=3, n_classes=2, img_size=224)
    model = SegmentationModel(network, {}, {})
    assert lay_windows(model, (300, 230), PatchConfig()).patch == (224, 224)
    assert lay_windows(model, (224, 100), PatchConfig()).patch == (224, 100)
    assert describe_windows(model, PatchConfig())["size"] == [224, 224]


def test_settings_say_how_an_image_is_cut() -> None:
    model = plain_model()
    assert lay_windows(model, (2000, 2000), PatchConfig("0")).patch == (2000, 2000)
    assert lay_windows(model, (300, 40), PatchConfig("64")).patch == (64, 40)
    patches = lay_windows(model, (64, 300), PatchConfig("64x128", 1.0))
    assert patches.patch == (64, 128) and [s[1] for s in patches.starts] == [0, 86, 172]
    assert describe_windows(model, PatchConfig("64x128")) == {"size": [64, 128], "step": 0.5, "weights": "gaussian"}
    assert describe_windows(model, PatchConfig("0")) == {"size": "whole images"}


@pytest.mark.parametrize("size", ["4", "100", "64x100", "64x64x64"])
def test_sides_that_the_network_cannot_take(size: str) -> None:
    with pytest.raises(ValueError, match="patch_size: expected"):
        lay_windows(plain_model(), (2000, 2000), PatchConfig(size))


@pytest.mark.parametrize("size", ["", "big", "-64", "64x", "x64", "64x0", "6.4", "64 x 64", "1e3", "9999999", "0x0", "²"])
def test_sides_that_are_none(size: str) -> None:
    with pytest.raises(ValueError, match="patch_size: expected auto, 0, or pixels"):
        PatchConfig(size)


@pytest.mark.parametrize("step", [0.0, -0.5, 1.01, float("nan")])
def test_a_step_leaves_nothing_out(step: float) -> None:
    with pytest.raises(ValueError, match="patch_step: expected a number above 0"):
        PatchConfig("64", step)


# the parts put together


@pytest.mark.parametrize("kind", list(ASKED))
@pytest.mark.parametrize("size", ["12x16", "64"])
def test_a_patch_as_large_as_the_image_is_the_image(kind: str, size: str) -> None:
    image = picture(12, 16, 2)
    whole, cut_once = (find(image, cut(ASKED[kind], s), drop=0.5 * (kind == "noise")) for s in ("0", size))
    for name in (*ARRAYS, "objective", "fit_loss"):
        np.testing.assert_array_equal(getattr(cut_once, name), getattr(whole, name))
    assert cut_once.patches is None and cut_once.audit == whole.audit


@pytest.mark.parametrize("kind", list(ASKED))
def test_patches_of_an_image_are_those_of_a_plan(kind: str) -> None:
    """The same network, fit data and patches once without and once with a plan; one pixel is one millimetre."""
    image = 3 * picture(20, 13, 1)
    config = ASKED[kind]
    if config.targets.target == "mask":
        config = change(config, {"views": "identity,blur,brighter"})  # a plan turns nothing, and mirrors what it says
    model = tiny_fold(3, classes=3, drop=0.5 * (kind == "noise"))
    fit = picture(2, 2, 8, 8, 1, seed=7), np.random.default_rng(8).integers(0, 3, (2, 2, 8, 8)).astype(np.int32)
    settings = {"patch_size": [8, 8], "spacing": [1.0, 1.0], "normalisation": [AS_READ], "mirror_axes": []}
    plan = plan_of(**settings)
    given = dataclasses.replace(model, manifest={"nnunet": record(**settings)})
    planned = planned_model([given], *fit, plan=plan, coding=Coding.of(plan, where="model"), search=config.search)
    # axes of a plan are the reader's: a scan of one slice has them in reverse
    scan = np.ascontiguousarray(image.transpose(1, 0, 2))[:, :, None]
    (expected,) = quantify_images(planned, [scan], config=config, geometries=[geometry_of(scan, (1.0, 1.0, 9.0))])
    plain = whole_image_model(model, fit_data(model, *fit), config.search)
    (found,) = quantify_images(plain, [image], config=cut(config, "8"))
    for name in ARRAYS:
        values = getattr(expected, name)
        values = values[:, :, :, 0].swapaxes(1, 2) if name == "adversarial" else values[:, :, 0].swapaxes(0, 1)
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-5)
    assert (found.patches, found.searched_patches) == (expected.patches, expected.searched_patches) and found.patches == 4 * 3
    rows = audit_rows(found)
    assert {(row["tile"], row["start"]) for row in rows} == {(row["tile"], row["start"][1:]) for row in audit_rows(expected)}
    assert len(np.unique(found.segmentation)) > 1  # so that there is a boundary to move
    assert "fold" not in rows[0] and found.epistemic.max() > 0 and found.segmentation.dtype == np.int8


def test_company_changes_no_number() -> None:
    image = picture(20, 13, 2)
    config = cut(MASKS, "8")
    alone = find(image, config)
    together = find(image, change(config, {"together": 3, "member_plan": "vmap"}))
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(together, name), getattr(alone, name), rtol=1e-3, atol=1e-5)


def test_nothing_asked_is_the_given_network() -> None:
    """The prediction is background throughout, so that no mask can be moved."""
    model = tiny_model(classes=2)
    head = next(name for name, value in model.params.items() if name.startswith("head") and value.ndim == 1)
    sure = dataclasses.replace(model, params={**model.params, head: model.params[head].at[0].add(100.0)})
    config = cut(dataclasses.replace(MASKS, targets=TargetConfig()), "8")
    shared = whole_image_model(sure, tiny_fit(sure), config.search)
    (found,) = quantify_images(shared, [picture(20, 13, 2)], config=config)
    assert not found.segmentation.any() and not found.adversarial.any() and not found.audit
    assert found.searched_patches == 0 and found.objective.shape == (0, 2, 2)
    np.testing.assert_allclose(found.total, found.softmax, atol=1e-6)


def test_slices_of_a_volume_are_cut_too() -> None:
    image = picture(20, 13, 3, 2)
    config = cut(MASKS, "8")
    found = find(image, config)
    assert found.patches == 3 * 4 * 3 and found.searched_patches == len(found.objective) > 0
    assert {row.slice for row in found.audit} == {0, 1, 2} and found.total.shape == (20, 13, 3)
    alone = find(np.ascontiguousarray(image[:, :, 1:2]), config)
    np.testing.assert_allclose(found.total[:, :, 1], alone.total[:, :, 0], atol=1e-4)  # keys matter to noise alone


def test_a_model_with_a_plan_is_cut_by_its_plan() -> None:
    settings = {"patch_size": [8, 8], "spacing": [1.0, 1.0], "normalisation": [AS_READ], "mirror_axes": []}
    plan = plan_of(**settings)
    given = dataclasses.replace(tiny_fold(3, classes=3), manifest={"nnunet": record(**settings)})
    fit = picture(1, 1, 8, 8, 1), np.zeros((1, 1, 8, 8), np.int32)
    shared = planned_model([given], *fit, plan=plan, coding=Coding.of(plan, where="model"), search=MASKS.search)
    scan = picture(8, 8, 1, 1)
    for asked in (cut(MASKS, "8"), cut(MASKS, "auto", 0.25)):
        with pytest.raises(ValueError, match="plan cuts images into patches of 8x8; expected no patch_size"):
            quantify_images(shared, [scan], config=asked, geometries=[geometry_of(scan, (1.0, 1.0, 1.0))])


# parts that keep memory flat


@pytest.mark.parametrize("element", ["square", "disk"])
@pytest.mark.parametrize("outside", ["edge", "background"])
@pytest.mark.parametrize("shape", ["dilate", "erode", "other_class", "random", "alternating", "all_one"])
def test_wanted_masks_by_rows_are_those_of_the_whole(shape: str, element: str, outside: str, monkeypatch) -> None:
    rng = np.random.default_rng(4)
    labels = np.kron(rng.integers(0, 3, (5, 4)), np.ones((5, 6), int)).astype(np.int8)
    probs = rng.dirichlet(np.ones(3), labels.shape).astype(np.float32)
    settings = TargetConfig(shapes=(shape,), radius=2, element=element, outside=outside)  # type: ignore[arg-type]
    found = []
    for block in (10**6, 4 * labels.shape[1] * 3):
        monkeypatch.setattr("quam_jax.data.large.BLOCK", block)
        found.append(wanted_in_blocks(labels, probs, shape, jax.random.key(0), 0, settings))
    np.testing.assert_array_equal(*found)
    assert found[0].dtype == np.int8


def test_labels_are_decided_row_by_row() -> None:
    patches = lay_patches((23, 9), (8, 6))
    band, rng = LabelBand(patches, 3), np.random.default_rng(1)
    total = np.zeros((23, 9, 3), np.float32)
    for index in range(len(patches.starts)):
        box, _ = patches.overlap(index)
        evidence = rng.standard_normal((*total[box].shape[:2], 3)).astype(np.float32)
        total[box] += evidence
        band.add(box, evidence)
    np.testing.assert_array_equal(band.close(), total.argmax(-1))
    np.testing.assert_array_equal(band.close(), total.argmax(-1))


@pytest.mark.parametrize("shape", [(23, 9), (5, 9)])  # the second is padded along its first axis
def test_weights_of_a_box_are_those_of_the_whole(shape: tuple[int, int]) -> None:
    patches = lay_patches(shape, (8, 6))
    box = (slice(1, 4), slice(2, 7))
    np.testing.assert_array_equal(weight_sum(patches, box), weight_sum(patches)[box])
