"""Pixels of the last block on patches: the same pixels as on whole images, and solvers, stops and precisions of members."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.config import SearchConfig
from quam_jax.core import searching
from quam_jax.core.layout.choose import Layout
from quam_jax.core.layout.patches import CROP, fit_patches, receptive_radius
from quam_jax.core.searching import search_prepared
from quam_jax.core.types import FitData
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.predict import fit_data, predict
from quam_jax.models.prepare import prepare
from quam_jax.targets.pixels import pixel_targets
from tests.tiny import search, tiny_fit, tiny_image, tiny_model, tiny_network, tiny_targets

SIZE = (16, 24)


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    with tiny_network():
        yield


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    """An attention U-Net with weights that keep its features apart."""
    network = Network.create("att_unet", in_channels=1, n_classes=2, channels=2, is_batchnorm=False, drop=0.0, decoder_drop=0.0)
    rng = np.random.default_rng(3)
    params = {
        n: jnp.asarray(rng.normal(size=s), jnp.float32) * (0.4 if len(s) > 1 else 0.1) for n, s in network.shapes()[0].items()
    }
    stats = {n: jnp.ones(s) for n, s in network.shapes()[1].items()}
    return SegmentationModel(network, params, stats)


def test_the_receptive_field_of_the_last_block(model: SegmentationModel) -> None:
    def radius(model: SegmentationModel, cut: str = "last_block", features: int = 4) -> int | None:
        return receptive_radius(model.network, model.params, model.stats, cut=cut, features=features, rank=2)

    assert radius(model) == 3  # three 3x3 convolutions and a 1x1
    assert radius(tiny_model()) == 0
    unpooled = Network.create("wnet", in_channels=3, n_classes=2)
    unpooled_model = SegmentationModel(unpooled, *unpooled.initialise(jax.random.key(0)))
    assert all(radius(unpooled_model, cut, 8) is None or radius(unpooled_model, cut, 8) <= 11 for cut in unpooled.cuts)


@pytest.mark.parametrize("place", [(8, 11), (0, 0), (15, 3), (2, 23)], ids=["inner", "corner", "edge", "near edges"])
def test_a_pixel_on_its_patch_is_the_pixel_of_the_image(
    monkeypatch: pytest.MonkeyPatch, model: SegmentationModel, place: tuple[int, int]
) -> None:
    """Without a constraint in reach the search of a pixel depends on its patch alone."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((*SIZE, 1)).astype(np.float32)
    fit = fit_data(model, rng.standard_normal((1, 2, *SIZE, 1)).astype(np.float32), rng.integers(0, 2, (1, 2, *SIZE)))
    points = np.array([np.ravel_multi_index(place, SIZE), 200])
    targets = pixel_targets(points, np.asarray(predict(model, image)), members=2)
    config = SearchConfig(space="last_block", members=2, steps=3, learning_rate=0.01, slack=100.0, optimizer="sgd")
    prepared = prepare(model, fit, config)
    found = search_prepared(prepared, image, targets, key=jax.random.key(0))
    monkeypatch.setattr(searching, "patch_radius", lambda *arguments: None)
    expected = search_prepared(prepared, image, targets, key=jax.random.key(0))
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-5)
    np.testing.assert_allclose(found.objective, expected.objective, atol=1e-5)
    assert np.abs(np.asarray(found.objective)[..., -1] - np.asarray(found.objective)[..., 0]).max() > 1e-3


def test_fit_patches_explain_their_labels(model: SegmentationModel) -> None:
    """The reference loss of patches is the loss of the whole image at the pixels that they explain."""
    rng = np.random.default_rng(1)
    features = rng.standard_normal((1, 2, *SIZE, 4)).astype(np.float32)
    labels = np.arange(2 * SIZE[0] * SIZE[1]).reshape(1, 2, *SIZE)  # every pixel its own
    fit = FitData(jnp.asarray(features), jnp.asarray(labels))
    windows, crops = fit_patches(fit, np.array([0, 0]), radius=3, count=5, key=jax.random.key(0))
    assert windows.shape == (2, 5, 6 + CROP, 6 + CROP, 4) and crops.shape == (2, 5, CROP, CROP)
    for window, crop in zip(windows.reshape(-1, *windows.shape[2:]), crops.reshape(-1, CROP, CROP), strict=True):
        image, row, column = np.unravel_index(np.asarray(crop)[0, 0], labels.shape[1:])
        np.testing.assert_array_equal(crop, labels[0, image, row : row + CROP, column : column + CROP])
        np.testing.assert_array_equal(window, features[0, image, row - 3 : row + 3 + CROP, column - 3 : column + 3 + CROP])


def test_chunks_of_patches_give_the_same_numbers(model: SegmentationModel) -> None:
    rng = np.random.default_rng(2)
    image = rng.standard_normal((*SIZE, 1)).astype(np.float32)
    fit = fit_data(model, rng.standard_normal((2, 1, *SIZE, 1)).astype(np.float32), rng.integers(0, 2, (2, 1, *SIZE)))
    targets = pixel_targets(np.array([5, 120, 200, 201, 300]), np.asarray(predict(model, image)), members=1)
    prepared = prepare(model, fit, SearchConfig(space="last_block", members=1, steps=2, optimizer="sgd", learning_rate=0.01))
    results = [search_prepared(prepared, image, targets, key=jax.random.key(0), layout=Layout(chunk=chunk)) for chunk in (2, 5)]
    for a, b in zip(*(result[:6] for result in results), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


CONFIG = SearchConfig(members=3, steps=6, learning_rate=0.3, slack=0.002, coefficient=0.0)


def test_backtracking_of_whole_networks_keeps_the_constraint() -> None:
    model = tiny_model()
    fit = tiny_fit(model, batches=1)
    free = search(model, tiny_image(), fit, targets=tiny_targets(), config=CONFIG, key=jax.random.key(0))
    backtrack = dataclasses.replace(CONFIG, solver="backtrack", steps=20)
    kept = search(model, tiny_image(), fit, targets=tiny_targets(), config=backtrack, key=jax.random.key(0))
    assert not (free.fit_loss <= free.bound).any()
    assert (kept.fit_loss <= kept.bound).any(-1).all()
    # halfway back again and again: the distance to the bound shrinks until the model is inside
    violation = np.asarray(kept.fit_loss - kept.bound)
    first_inside = (violation <= 0).argmax(-1)
    assert all(np.all(np.diff(row[:n]) < 0) for row, n in zip(violation[0], first_inside[0], strict=True))


def test_a_target_rests_when_it_has_what_it_wants() -> None:
    model = tiny_model()
    probs = np.asarray(predict(model, tiny_image()))
    targets = pixel_targets(np.array([np.abs(probs[..., 0] - 0.5).argmin()]), probs, members=1)  # the least certain pixel
    config = SearchConfig(members=1, steps=12, learning_rate=0.02, slack=10.0, stop="flipped")
    found = search(model, tiny_image(), tiny_fit(model), targets=targets, config=config, key=jax.random.key(0))
    going = search(
        model,
        tiny_image(),
        tiny_fit(model),
        targets=targets,
        config=dataclasses.replace(config, stop="never"),
        key=jax.random.key(0),
    )
    flipped = np.asarray(found.probs[0, 0, :, 0]).argmax(-1) == int(targets.labels[0, 0, 0])
    first = int(flipped.argmax())
    assert flipped[first:].all() and first < 10
    np.testing.assert_array_equal(found.objective[0, 0, first:], np.full(12 - first, found.objective[0, 0, first]))
    assert float(going.objective[0, 0, -1]) < float(found.objective[0, 0, -1])


def test_bfloat16_stays_near() -> None:
    model = tiny_model()
    config = dataclasses.replace(CONFIG, learning_rate=0.01, steps=3)
    arguments = dict(targets=tiny_targets(), key=jax.random.key(0))
    whole = search(model, tiny_image(), tiny_fit(model), **arguments, config=config)
    half = search(model, tiny_image(), tiny_fit(model), **arguments, config=dataclasses.replace(config, compute="bfloat16"))
    assert half.probs.dtype == np.float32
    assert 1e-5 < np.abs(half.probs - whole.probs).max() < 0.02


def test_an_unknown_optimiser_is_named() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="optimizer: expected sgd or one of adadelta, .*lion.*got 'adamax2', which is not known"):
        prepare(model, tiny_fit(model), dataclasses.replace(CONFIG, optimizer="adamax2"))
    moved = search(
        model,
        tiny_image(),
        tiny_fit(model),
        targets=tiny_targets(),
        key=jax.random.key(0),
        config=dataclasses.replace(CONFIG, optimizer="lion", learning_rate=1e-3),
    )
    assert np.isfinite(moved.probs).all()


DEVICES = """
import jax, numpy as np
from quam_jax.config import ExecutionConfig, SearchConfig
from quam_jax.core.layout.choose import Layout
from quam_jax.core.searching import search_images
from quam_jax.models.prepare import prepare
from tests.tiny import *
with tiny_network():
    model = tiny_model()
    assert jax.local_device_count() == 4
    config = SearchConfig(members=8, steps=3, learning_rate=0.05)
    runs = [search(model, tiny_image(), tiny_fit(model), targets=tiny_targets(members=8), config=config, key=jax.random.key(0),
                   execution=ExecutionConfig("vmap", steps, chunk, devices=devices))
            for steps, chunk, devices in (("scan", 8, 1), ("scan", 8, 4), ("loop", 0, 0), ("scan", 6, 2))]
    for found in runs[1:]:
        for a, b in zip(runs[0][:6], found[:6], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    prepared, images = prepare(model, tiny_fit(model), config), [tiny_image(), tiny_image(seed=7)]  # 16 members of two images
    both = search_images(prepared, images, [tiny_targets(members=8)] * 2, keys=[jax.random.key(0)] * 2,
                         layout=Layout("vmap", "scan", 8, devices=4))
    for a, b in zip(runs[0][:6], both[0][:6], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(both[0].probs - both[1].probs).max() > 1e-3
print("equal")
"""


@pytest.mark.long
def test_members_on_several_devices_give_the_same_numbers() -> None:
    root = Path(__file__).parent.parent
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4",
    }
    done = subprocess.run([sys.executable, "-c", DEVICES], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
