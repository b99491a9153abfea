"""What output channels mean: one logit, independent channels, and what a search makes of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from quam_jax.baselines.laplace import fit_posterior
from quam_jax.config import SearchConfig
from quam_jax.core import searching
from quam_jax.core.network import EVAL, Mode
from quam_jax.core.searching import search_prepared
from quam_jax.core.types import Trajectory
from quam_jax.models.coding import Coding
from quam_jax.models.description import model_digest
from quam_jax.models.folder import restore_model, save_model
from quam_jax.models.loading import load_model
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.outputs import declare_outputs
from quam_jax.models.predict import predict
from quam_jax.models.prepare import prepare
from quam_jax.targets.pixels import pixel_targets
from tests.tiny import tiny_fit, tiny_image, tiny_model, tiny_network, tiny_targets

BRATS = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    with tiny_network():
        yield


def one_logit() -> SegmentationModel:
    return declare_outputs(tiny_model(classes=1))


def independent(channels: int = 2) -> SegmentationModel:
    return declare_outputs(tiny_model(classes=channels), "sigmoid")


@dataclasses.dataclass(frozen=True)
class Twin:
    """A network of one logit z as one of the two classes [0, z], written out."""

    own: Network
    size_multiple: int = 2

    def apply(self, params: Any, stats: Any, images: Any, mode: Mode = EVAL) -> Any:
        z, after = self.own.apply(params, stats, images, mode)
        return jnp.concatenate([jnp.zeros_like(z), z], -1), after


def test_one_logit_is_the_two_classes_0_and_z() -> None:
    plain, model = tiny_model(classes=1), one_logit()
    z = np.asarray(plain(tiny_image()[None]))
    assert model.network.classes == 2 and model.network.out_channels == 1
    np.testing.assert_array_equal(model(tiny_image()[None]), np.concatenate([np.zeros_like(z), z], -1))
    np.testing.assert_allclose(predict(model, tiny_image())[..., 1], expit(z[0, ..., 0]), atol=1e-6)
    assert model_digest(model) != model_digest(plain)


@pytest.mark.parametrize("space", ["full", "last_block"])
def test_a_search_of_one_logit_is_that_of_the_two_class_twin(space: str) -> None:
    model = one_logit()
    config = SearchConfig(members=2, steps=3, learning_rate=0.05, slack=0.01, space=space)
    prepared, targets, key = prepare(model, tiny_fit(model), config), tiny_targets(members=2), jax.random.key(0)
    found = search_prepared(prepared, tiny_image(), targets, key=key)
    if space == "full":
        twin = searching.prepare(
            Twin(dataclasses.replace(model.network, sums=None)),
            model.params,
            model.stats,
            tiny_fit(model),
            procedure=prepared.procedure,
        )
        expected = search_prepared(twin, tiny_image(), targets, key=key)
        for name, a, b in zip(Trajectory._fields[:6], found[:6], expected[:6], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)
    assert found.probs.shape[-1] == 2 and np.ptp(np.asarray(found.probs), 2).max() > 1e-3


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("changes", [{}, {"solver": "backtrack"}, {"optimizer": "sgd"}], ids=["adam", "backtrack", "sgd"])
def test_heads_of_sums_equal_whole_networks(monkeypatch: pytest.MonkeyPatch, channels: int, changes: dict[str, Any]) -> None:
    model = independent(channels)
    assert model.network.classes == 2**channels
    config = SearchConfig(space="head", members=2, steps=4, learning_rate=0.05, slack=0.01, fit_points=0, **changes)
    points = np.array([0, 7, 30, 41, 95])
    targets = pixel_targets(points, np.asarray(predict(model, tiny_image())), members=2)
    prepared, key = prepare(model, tiny_fit(model), config), jax.random.key(5)
    found = search_prepared(prepared, tiny_image(), targets, key=key)
    monkeypatch.setattr(searching, "is_for_heads", lambda *arguments: False)
    expected = search_prepared(prepared, tiny_image(), targets, key=key)
    assert isinstance(found.probs, np.ndarray) and not isinstance(expected.probs, np.ndarray)  # heads are kept as NumPy arrays
    for name, a, b in zip(Trajectory._fields[:6], found[:6], expected[:6], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_line_search_stays_a_model_of_the_channels(channels: int) -> None:
    """Its probabilities are products of the channels', the bound holds, and it goes as far as it allows."""
    model = independent(channels)
    config = SearchConfig(space="head", members=1, solver="line_search", slack=0.01, fit_points=0)
    targets = pixel_targets(np.array([0, 7, 30]), np.asarray(predict(model, tiny_image())), members=1)
    found = search_prepared(prepare(model, tiny_fit(model), config), tiny_image(), targets, key=jax.random.key(5))
    probs, subsets = np.asarray(found.probs, np.float64), np.asarray(model.network.sums)
    marginal = probs @ subsets
    joint = np.prod(np.where(subsets == 1, marginal[..., None, :], 1 - marginal[..., None, :]), -1)
    np.testing.assert_allclose(probs, joint, atol=1e-5)
    loss, bound, reference = (np.asarray(leaf) for leaf in (found.fit_loss, found.bound, found.reference_loss))
    used = (loss - reference) / (bound - reference)
    assert (used <= 1 + 1e-4).all() and (used > 0.99).all()


def test_the_loss_of_subsets_is_the_sum_of_the_binary_ones() -> None:
    model, labels = independent(3), np.random.default_rng(0).integers(0, 8, (1, 8, 12))
    images = tiny_image()[None]
    z = np.asarray(dataclasses.replace(model, network=dataclasses.replace(model.network, sums=None))(images), np.float64)
    hot = (labels[..., None] >> np.arange(3)) & 1
    binary = -(hot * np.log(expit(z)) + (1 - hot) * np.log(expit(-z))).sum(-1).mean()
    logits = np.asarray(model(images), np.float64)
    whole = -(np.take_along_axis(logits - np.log(np.exp(logits).sum(-1, keepdims=True)), labels[..., None], -1)).mean()
    assert whole == pytest.approx(binary, abs=1e-6)


def test_the_decomposition_of_independent_channels_is_the_sum_of_theirs() -> None:
    rng = np.random.default_rng(1)
    marginal = rng.uniform(0.05, 0.95, (5, 7, 3))
    subsets = np.asarray(independent(3).network.sums)
    joint = np.prod(np.where(subsets == 1, marginal[..., None, :], 1 - marginal[..., None, :]), -1)
    entropy = -(marginal * np.log(marginal) + (1 - marginal) * np.log(1 - marginal)).sum(-1).mean(0)
    found = -(joint * np.log(joint)).sum(-1).mean(0)
    np.testing.assert_allclose(found, entropy, atol=1e-9)


def test_what_is_declared_comes_back_from_a_folder(tmp_path: Any) -> None:
    for number, model in enumerate((one_logit(), independent(2), declare_outputs(tiny_model(classes=3), regions=BRATS))):
        save_model(tmp_path / str(number), model)
        again = restore_model(tmp_path / str(number))
        assert again.network == model.network and again.manifest["outputs"] == model.manifest["outputs"]
        np.testing.assert_array_equal(again(tiny_image()[None]), model(tiny_image()[None]))


def test_a_folder_of_before_with_one_channel_is_one_logit(tmp_path: Any) -> None:
    save_model(tmp_path / "old", tiny_model(classes=1))
    assert restore_model(tmp_path / "old").network.classes == 2


def test_regions_are_written_from_the_largest_on() -> None:
    """MONAI's order TC, WT, ET: what is inside is written over what is around it, whatever the channels' order."""
    record = declare_outputs(tiny_model(classes=3), regions=BRATS).manifest["outputs"]
    assert list(record["regions"]) == ["WT", "TC", "ET"] and record["channels"] == [1, 0, 2] and record["writes"] == [2, 1, 3]
    coding = Coding(4, tuple(map(tuple, record["regions"].values())), tuple(record["writes"]))
    np.testing.assert_array_equal(coding.label_of_class[coding.class_of_label], [0, 1, 2, 3])


def test_the_logits_of_subsets_are_those_of_the_named_channels() -> None:
    """In the order of writing, which here is a cycle of the channels' order."""
    model = declare_outputs(tiny_model(classes=3), regions={"ET": [3], "WT": [1, 2, 3], "TC": [1, 3]})
    assert model.manifest["outputs"]["channels"] == [1, 2, 0]
    et, wt, tc = np.moveaxis(np.asarray(tiny_model(classes=3)(tiny_image()[None]))[0], -1, 0)
    logits = np.asarray(model(tiny_image()[None]))[0]
    for number, wanted in enumerate((0 * wt, wt, tc, wt + tc, et, wt + et, tc + et, wt + tc + et)):
        np.testing.assert_allclose(logits[..., number], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "names", "regions"),
    [
        (1, None, {"foreground": [1]}),
        (1, ["vessel"], {"vessel": [1]}),
        (1, ["background", "vessel"], {"vessel": [1]}),
        (3, None, {"region 1": [1], "region 2": [2], "region 3": [3]}),
        (3, ["a", "b", "c"], {"a": [1], "b": [2], "c": [3]}),
        (3, ["Background", "b", "c"], {"Background": [0], "b": [1], "c": [2]}),
    ],
)
def test_labels_of_channels_without_a_word_about_them(channels: int, names: list[str] | None, regions: dict[str, Any]) -> None:
    model = declare_outputs(tiny_model(classes=channels), "sigmoid", names=names)
    assert model.manifest["outputs"]["regions"] == regions
    if channels == 1:
        assert model.manifest.get("class_names") == (None if names is None else ["background", "vessel"])


@pytest.mark.parametrize(
    ("channels", "meaning", "regions", "names", "message"),
    [
        (1, "softmax", None, None, "softmax of one channel is 1 everywhere"),
        (2, "logits", None, None, "expected one of softmax, sigmoid, got 'logits'"),
        (2, "softmax", {"a": [1], "b": [2]}, None, "expected none with softmax"),
        (5, "sigmoid", None, None, "expected 4 independent channels at most"),
        (2, None, {"a": [1]}, None, "expected one for each of the 2 output channels, got a"),
        (2, None, {"a": [1], "b": [1]}, None, "expected other labels for every channel"),
        (2, None, {"a": [1], "b": [300]}, None, "region b: expected labels from 0 to 255"),
        (2, None, {"a": [1], "b": []}, None, "region b: expected labels from 0 to 255"),
        (2, None, {"a": 1.5, "b": [1]}, None, "regions: expected labels for every name"),
        (2, None, None, ["a"], "expected 2 class names, got 1: a"),
        (1, None, None, ["a", "b", "c"], "expected 1 or 2 class names, got 3: a, b, c"),
    ],
)
def test_what_does_not_fit(
    channels: int, meaning: str | None, regions: dict[str, Any] | None, names: Sequence[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        declare_outputs(tiny_model(classes=channels), meaning, regions=regions, names=names)


def test_the_laplace_posterior_of_one_logit_is_about_its_two_classes() -> None:
    model = one_logit()
    mean = fit_posterior(model, tiny_fit(model)).mean
    assert mean.shape == (5, 2) and not mean[:, 0].any()
    np.testing.assert_array_equal(mean[:-1, 1], model.params["head.weight"][0, 0, :, 0])


@pytest.mark.parametrize(("name", "classes"), [("wnet_drive", 2), ("big_wnet_drive_av", 4)])
def test_real_vessel_networks_are_converted(shared: Path, name: str, classes: int) -> None:
    """lwnet has one logit for vessels, and four classes for arteries and veins."""
    model = load_model(shared / "weights" / "lwnet" / f"{name}.pth")
    images = np.random.default_rng(0).random((1, 32, 40, 3)).astype(np.float32)
    logits = np.asarray(model(images))
    assert model.network.classes == classes and logits.shape == (1, 32, 40, classes)
    if classes == 2:
        own = dataclasses.replace(model, network=dataclasses.replace(model.network, sums=None))
        np.testing.assert_array_equal(logits[..., 0], 0)
        np.testing.assert_array_equal(logits[..., 1], np.asarray(own(images))[..., 0])
