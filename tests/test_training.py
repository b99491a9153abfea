"""Training: it learns, goes on where it stopped, draws cases and loss as by hand, and names input that does not fit."""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.evaluation.overlap import dice
from quam_jax.models.folder import restore_model
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.training.examples import batch, batch_shape, check_examples
from quam_jax.training.files import train_from_files
from quam_jax.training.losses import segmentation_loss
from quam_jax.training.request import TrainRequest
from quam_jax.training.settings import TrainConfig
from quam_jax.training.state import begin, read_state, write_state
from quam_jax.training.trainer import case_dice, learning_rate, train
from tests.small_run import write_cases

PLAIN = Network.create(
    "nnunet_plain",
    in_channels=1,
    n_classes=2,
    features_per_stage=(4, 8, 8),
    rank=2,
    n_conv_per_stage=1,
    n_conv_per_stage_decoder=1,
)  # sides in multiples of 4


def squares(count: int, side: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    """Bright squares on noise, and where they are."""
    rng = np.random.default_rng(7)
    cases = []
    for _ in range(count):
        labels = np.zeros((side, side), np.int32)
        row, column = rng.integers(1, side - 8, 2)
        labels[row : row + 6, column : column + 6] = 1
        image = labels[..., None] * 2.0 + rng.normal(0, 0.5, (side, side, 1))
        cases.append((image.astype(np.float32), labels))
    return cases


def equal(one: SegmentationModel, other: SegmentationModel) -> bool:
    mine, theirs = {**one.params, **one.stats}, {**other.params, **other.stats}
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[n], theirs[n]) for n in mine)


# Training


@pytest.mark.parametrize(
    "network",
    [
        Network.create("plain_unet", in_channels=1, n_classes=2, channels=2, drop=0.3),
        Network.create("wnet", in_channels=1, n_classes=2, widths=(2, 3)),
    ],
    ids=["dropout", "batch statistics"],
)
def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(network: Network, tmp_path: Path) -> None:
    config = TrainConfig(steps=5, batch_size=2, rotation=30.0, grain=0.1, checkpoint_every=2)
    cases, state = squares(3), tmp_path / "state"
    whole = train(network, cases, config=config)
    seen: list[int] = []

    def interrupt(step: int, loss: float) -> None:
        seen.append(step)
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network, cases, config=config, checkpoint=state, progress=interrupt)
    resumed = train(network, cases, config=config, checkpoint=state, progress=lambda step, loss: seen.append(step))
    assert seen == [1, 2, 3, 3, 4, 5]  # the state was that after step 2
    assert equal(whole, resumed)
    assert not equal(whole, train(network, cases, config=dataclasses.replace(config, seed=1)))
    assert list(tmp_path.iterdir()) == [state]
    means = [value for name, value in resumed.stats.items() if name.endswith("running_mean")]
    assert all(np.any(value != 0) for value in means) and bool(means) == (network.architecture == "wnet")
    again = train(network, cases, config=config, checkpoint=state, progress=lambda step, loss: pytest.fail("a step"))
    assert equal(whole, again)


def test_a_training_from_files_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write_cases(tmp_path / "data", ["a", "b"])
    arguments = {"features_per_stage": (2, 3), "rank": 2, "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1}

    def request(name: str) -> TrainRequest:
        folders = (tmp_path / "data" / "images", tmp_path / "data" / "masks", tmp_path / name)
        return TrainRequest(*folders, "nnunet_plain", arguments, config=TrainConfig(steps=4, batch_size=2, checkpoint_every=2))

    def interrupt(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    whole = train_from_files(request("whole"))
    assert whole.examples == 2 and whole.model.manifest["training"]["loss"] == "segmentation"
    with pytest.raises(KeyboardInterrupt):
        train_from_files(request("parts"), progress=interrupt)
    assert request("parts").state.is_file() and not (tmp_path / "parts").exists()
    seen: list[int] = []
    resumed = train_from_files(request("parts"), progress=lambda step, loss: seen.append(step))
    assert seen == [3, 4] and equal(whole.model, resumed.model) and equal(whole.model, restore_model(tmp_path / "parts"))
    (tmp_path / "data" / "masks" / "b_r0.png").unlink()
    (tmp_path / "data" / "masks" / "b_r1.png").unlink()
    with pytest.raises(ValueError, match="masks: expected a mask for every image, got none for b"):
        train_from_files(request("parts"))


def test_it_learns_squares() -> None:
    losses: list[float] = []
    cases, held_out = squares(8), squares(12)[8:]
    config = TrainConfig(steps=80, batch_size=2, learning_rate=1e-2, checkpoint_every=40)
    model = train(PLAIN, cases, config=config, validation=held_out, progress=lambda step, loss: losses.append(loss))
    assert len(losses) == 80
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    history = model.manifest["training"]["validation_dice"]
    assert [step for step, _ in history] == [40, 80]
    assert history[-1][1] == pytest.approx(case_dice(model, held_out).mean()) and history[-1][1] > 0.85
    assert model.manifest["training"]["settings"] == dataclasses.asdict(config)


def test_rater_means_train_as_labels_do_where_the_raters_agree() -> None:
    cases = squares(2)
    means = [(image, np.eye(2, dtype=np.float32)[labels]) for image, labels in cases]
    config = TrainConfig(steps=2, batch_size=2)
    assert equal(train(PLAIN, cases, config=config), train(PLAIN, means, config=config))


def test_images_of_different_sizes_train_together_without_loss_on_the_padding() -> None:
    large, small = squares(1, 16)[0], squares(1, 10)[0]
    cases = check_examples(PLAIN, [large, small], what="case")
    shape = batch_shape(PLAIN, cases, crop=0)
    assert shape == (16, 16)
    images, targets = batch(cases, TrainConfig(batch_size=2), step=0, shape=shape)
    assert sorted(targets.sum((1, 2, 3))) == [100, 256]  # a row of ones for each labelled pixel
    padded = images[int(targets[0].sum() > 100)]
    np.testing.assert_array_equal(padded[3:13, 3:13], small[0])  # centred, 3 pixels on each side
    assert (padded[:3, 3:13] == small[0][0]).all()
    model = train(PLAIN, [large, small], config=TrainConfig(steps=2, batch_size=2))
    assert all(np.isfinite(value).all() for value in model.params.values())
    assert batch_shape(PLAIN, check_examples(PLAIN, [squares(1, 13)[0]], what="case"), crop=0) == (16, 16)
    assert batch_shape(PLAIN, cases, crop=9) == (12, 12)


def test_volumes_train() -> None:
    network = Network.create(
        "nnunet_plain",
        in_channels=2,
        n_classes=3,
        features_per_stage=(2, 2),
        rank=3,
        n_conv_per_stage=1,
        n_conv_per_stage_decoder=1,
    )
    rng = np.random.default_rng(5)
    cases = [(rng.normal(size=(*shape, 2)), rng.integers(0, 3, shape)) for shape in ((4, 4, 2), (3, 4, 4))]
    losses: list[float] = []
    model = train(
        network, cases, config=TrainConfig(steps=2, batch_size=2, rotation=20.0), progress=lambda step, loss: losses.append(loss)
    )
    assert np.isfinite(losses).all() and len(losses) == 2
    assert model(cases[1][0][None]).shape == (1, 3, 4, 4, 3)


def test_crops_are_windows_of_their_case_and_move_with_the_step() -> None:
    ramp = np.arange(16 * 16, dtype=np.float32).reshape(16, 16, 1)
    cases = check_examples(PLAIN, [(ramp, (ramp[..., 0] % 2).astype(np.int32))], what="case")
    corners = set()
    for step in range(20):
        images, targets = batch(cases, TrainConfig(batch_size=1, crop=8), step=step, shape=(8, 8))
        row, column = divmod(int(images[0, 0, 0, 0]), 16)
        np.testing.assert_array_equal(images[0], ramp[row : row + 8, column : column + 8])
        np.testing.assert_array_equal(targets[0, ..., 1], images[0, ..., 0] % 2)
        corners.add((row, column))
    assert len(corners) > 5 and max(max(c) for c in corners) <= 8


def test_every_case_comes_once_an_epoch() -> None:
    cases = check_examples(PLAIN, [(np.full((4, 4, 1), n, np.float32), np.zeros((4, 4), int)) for n in range(6)], what="case")
    config = TrainConfig(batch_size=4)
    order = np.concatenate([batch(cases, config, step=step, shape=(4, 4))[0][:, 0, 0, 0] for step in range(6)])
    epochs = order.reshape(4, 6)
    assert (np.sort(epochs) == np.arange(6)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


def test_learning_rate_rises_and_falls_as_a_cosine() -> None:
    config = TrainConfig(steps=100, learning_rate=2.0)
    assert learning_rate(config, 0) == pytest.approx(0.4)  # the first of 5 steps of the rise
    assert learning_rate(config, 50) == pytest.approx(1.0)  # half-way down the cosine
    assert learning_rate(config, 75) == pytest.approx(1 - math.sqrt(0.5))
    assert learning_rate(config, 99) == pytest.approx(1 + math.cos(0.99 * math.pi))


# Loss


def test_loss_of_one_pixel_by_hand() -> None:
    logits, target = jnp.zeros((1, 1, 1, 2)), jnp.array([[[[0.0, 1.0]]]])
    assert float(segmentation_loss(logits, target, dice_weight=0.0)) == pytest.approx(math.log(2))
    # soft Dice (2*0.5*1 + 1) / (0.5 + 1 + 1) = 0.8
    assert float(segmentation_loss(logits, target, dice_weight=3.0)) == pytest.approx(math.log(2) + 3 * 0.2)
    soft = jnp.array([[[[0.25, 0.75]]]])
    shifted = jnp.array([[[[0.0, math.log(3)]]]])  # probabilities 1/4, 3/4: the loss is the entropy
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert float(segmentation_loss(shifted, soft, dice_weight=0.0)) == pytest.approx(entropy)


def test_ignored_pixels_do_not_count() -> None:
    rng = np.random.default_rng(3)
    logits = jnp.asarray(rng.normal(size=(1, 4, 4, 3)), jnp.float32)
    target = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (1, 4, 4))]
    target[:, 2:] = 0
    whole = segmentation_loss(logits, jnp.asarray(target), dice_weight=1.0)
    part = segmentation_loss(logits[:, :2], jnp.asarray(target[:, :2]), dice_weight=1.0)
    assert float(whole) == pytest.approx(float(part), rel=1e-6)
    assert float(segmentation_loss(logits, jnp.zeros_like(logits), dice_weight=1.0)) == 0


# Bad input


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"dice_weight": -0.1}, "dice_weight"),
        ({"rotation": 181.0}, "rotation"),
        ({"crop": -1}, "crop"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings_are_named(changes: dict, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        TrainConfig(**changes)


def test_cases_that_do_not_fit_are_named() -> None:
    image, labels = squares(1)[0]
    soft = np.eye(2, dtype=np.float32)[labels]
    wrong = [
        ((image[..., 0], labels), "image: expected 2 spatial axes and 1 channels"),
        ((np.full_like(image, np.nan), labels), "image: expected finite"),
        ((image, labels + 1), "labels: expected 0 to 1 .* got 1 to 2"),
        ((image, labels[:-1]), r"expected whole labels of shape \(16, 16\)"),
        ((image, labels.astype(float)), r"expected .* probabilities of shape \(16, 16, 2\)"),
        ((image, soft * 0.5), "probabilities: expected"),
    ]
    for case, message in wrong:
        with pytest.raises(ValueError, match=f"training case 1: {message}"):
            train(PLAIN, [(image, labels), case])
    with pytest.raises(ValueError, match="training cases: expected at least one"):
        train(PLAIN, [])


def test_a_loss_that_is_not_finite_stops_with_its_step_and_leaves_no_state(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"step \d+: expected a finite loss and gradient.*lower the learning rate") as error:
        train(PLAIN, squares(2), config=TrainConfig(steps=5, batch_size=2, learning_rate=1e30), checkpoint=tmp_path / "s")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_states_of_another_run_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "deep" / "state", begin(PLAIN, 0)
    write_state(path, state, step=3, history=[(2, 0.5)], identity="mine")
    read, step, history = read_state(path, like=begin(PLAIN, 1), identity="mine")
    assert (step, history) == (3, [(2, 0.5)])
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, read, state)))
    with pytest.raises(ValueError, match="expected the state of this run"):
        read_state(path, like=state, identity="another")
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], b"no archive"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="expected a training state.*delete it to begin anew"):
            read_state(path, like=state, identity="mine")
    with pytest.raises(ValueError, match="expected a training state"):
        train(PLAIN, squares(2), config=TrainConfig(steps=1), checkpoint=path)


def test_case_dice_leaves_ignored_pixels_out() -> None:
    params, stats = PLAIN.initialise(jax.random.key(2))
    model = SegmentationModel(PLAIN, params, stats)
    image, labels = squares(1)[0]
    predicted = np.asarray(model(image[None])[0]).argmax(-1)
    labels = np.where(np.arange(16)[:, None] < 8, predicted, 1 - predicted)  # right in the upper half only
    half = np.where(np.arange(16)[:, None] < 8, labels, -1)
    whole, upper = case_dice(model, [(image, labels), (image, half)])
    assert whole == pytest.approx(dice(predicted, labels))
    assert upper == 1.0 or not predicted[:8].any()
