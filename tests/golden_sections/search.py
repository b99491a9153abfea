"""Section D: whole adversarial searches against the reference's trajectories, step by step.

A search amplifies rounding: once a ReLU or a max-pool decides otherwise, a pixel goes its own way. In float64 that does
not happen within these searches, so the float64 run is compared tightly with the reference's float64 numbers, all of
them; the float32 run is compared tightly at its first step, and in the median over all steps. Where the reference ran
with dropout, its recorded masks are replayed, in float64 against its float32 numbers, which are all there is.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quam_jax.config import SearchConfig
from quam_jax.config.build import build_schedule
from quam_jax.core.searching import search_prepared
from quam_jax.core.setup import Frozen, Setup, StepInputs, Target
from quam_jax.core.step import begin, step
from quam_jax.core.types import Trajectory
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.predict import fit_data
from quam_jax.models.prepare import prepare
from quam_jax.published.combination import best_prediction
from quam_jax.targets.masks import mask_targets
from quam_jax.targets.wanted.dilate import dilate
from quam_jax.targets.wanted.erode import erode

from .double import as_double, double_precision
from .forward import from_torch

FOLDER = "D_search"
SCHEDULES = {"lin": "linear", "exp": "exponential"}
RADIUS = 3  # the published three iterations of a 3x3 window
DROP = 0.3  # of the nine published layers that cannot be switched off
PASSES = ("mask_train", "mask_test", "mask_record")
# Against float64 numbers that were stored as float32 (probabilities and losses of size up to 1; scaled for larger ones).
TIGHT = 2e-6
REPLAYED = 5e-5  # a float64 replay against a float32 run
FIRST_STEP, MEDIAN = 1e-4, 1e-3  # float32 against float32
# mean deviation of a tensor of the searched model: of weights in learning rates (seen: 1e-3), of statistics relative to
# their size (seen: 2e-5)
WEIGHTS, STATISTICS = 1e-2, 2e-4


class Case(NamedTuple):
    """What the files of a case hold, with classes and channels last."""

    meta: dict[str, Any]
    network: Network
    weights: dict[str, np.ndarray]
    data: dict[str, np.ndarray]
    single: dict[str, np.ndarray]
    double: dict[str, np.ndarray] | None
    noise: Any
    states: dict[str, np.ndarray]

    @property
    def config(self) -> SearchConfig:
        """The published procedure with the case's numbers."""
        meta, schedule = self.meta, self.meta["schedule"]
        return SearchConfig.published(
            members=meta["num_models"],
            epochs=meta["num_epochs"],
            batch_stride=meta["penalties_per_optimisation_step"],
            learning_rate=meta["lr"],
            coefficient=meta["initial_c"],
            slack=meta["gamma"],
            schedule=SCHEDULES[schedule["type"]],
            schedule_start=schedule["c0"],
            schedule_rate=schedule["eta"],
            schedule_every=schedule["update_c_every"],
        )


class Result(NamedTuple):
    """A finished search under the names and in the layout of the reference's files."""

    sample_preds: np.ndarray
    train_loss: np.ndarray
    pen_loss: np.ndarray
    obj_loss: np.ndarray
    model_train_loss: np.ndarray
    average_net_pred: np.ndarray
    test_best_pred: np.ndarray


def cases(golden: Path) -> list[str]:
    """Names of the cases that `check` takes: those whose files are there."""
    return [case["name"] for case in _index(golden) if case["arch"] == "AttUNet"]


def not_covered(golden: Path) -> list[str]:
    """Cases of another architecture."""
    return [case["name"] for case in _index(golden) if case["arch"] != "AttUNet"]


def check(golden: Path, case: str) -> None:
    """Assert the plan of the steps, the wanted masks and every returned array, in float64 and in float32."""
    given = _read(golden, case)
    _check_plan(given)
    with double_precision():
        found = _search(given, double=True)
        if given.states:
            _check_states(given)
    expected = given.double or given.single
    for name, value in expected.items():
        limit = (TIGHT if given.double else REPLAYED) * max(1.0, np.abs(value).max())
        np.testing.assert_allclose(getattr(found, name), value, rtol=0, atol=limit, err_msg=f"float64 {name}")
    if given.double:
        _check_single(_search(given, double=False), given.single)


def check_single(golden: Path, case: str) -> None:
    """Assert the float32 run alone: for devices on which float64 is slow or missing."""
    given = _read(golden, case)
    _check_plan(given)
    if given.double:
        _check_single(_search(given, double=False), given.single)


def _check_single(found: Result, expected: dict[str, np.ndarray]) -> None:
    for name in ("average_net_pred", "model_train_loss"):
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    for name in ("sample_preds", "train_loss", "pen_loss", "obj_loss"):
        value, reference = getattr(found, name), expected[name]
        assert value.shape == reference.shape, f"{name}: expected {reference.shape}, got {value.shape}"
        limit = FIRST_STEP * max(1.0, np.abs(reference[:, 0]).max())
        np.testing.assert_allclose(value[:, 0], reference[:, 0], rtol=0, atol=limit, err_msg=f"float32 {name}")
        median = np.median(np.abs(value - reference))
        assert median <= MEDIAN * max(1.0, np.abs(reference).max()), f"{name}: median deviation {median:.2e}"


def _check_plan(given: Case) -> None:
    """Coefficients and fit batches of the steps: the schedule's value serves the step after it."""
    data, batches = given.data, len(given.data["images"])
    plan = build_schedule(given.config).plan(batches)
    np.testing.assert_array_equal(plan.batch, data["batch_index_used"])
    np.testing.assert_array_equal(plan.batch, data["sched_step_arg"] % batches)
    np.testing.assert_allclose(plan.coefficient, data["c_used"], rtol=1e-12)
    longer = dataclasses.replace(given.config, epochs=given.config.epochs + 1)
    after = build_schedule(longer).plan(batches).coefficient[1 : len(plan.batch) + 1]
    np.testing.assert_allclose(after, data["sched_value"], rtol=1e-12)


def _search(given: Case, *, double: bool) -> Result:
    config, data = given.config, given.data
    model = _model(given, double=double)
    number = jnp.float64 if double else jnp.float32
    image = jnp.asarray(data["test_image"], number)
    fit = fit_data(model, jnp.asarray(data["images"], number), jnp.asarray(data["masks"], jnp.int32))
    logits = _logits(model.network, model.params, model.stats, image)
    np.testing.assert_allclose(logits, data["ref_logits"], rtol=0, atol=2e-5 * np.abs(data["ref_logits"]).max())
    mask = jnp.argmax(logits[0], -1)
    np.testing.assert_array_equal(mask, data["first_mask"][0])
    targets = mask_targets(
        [dilate(mask, radius=RADIUS), erode(mask, radius=RADIUS, outside="background")], members=config.members
    )
    wanted = np.asarray(targets.labels).reshape(data["target_masks"].shape)
    np.testing.assert_array_equal(wanted, data["target_masks"])
    prepared = prepare(model, fit, config)
    trajectory = search_prepared(prepared, image[0], targets, key=jax.random.key(0), noise=_noise(given))
    return _as_published(trajectory, prepared.reference_loss, jax.nn.softmax(logits), mask.shape)


def _as_published(trajectory: Trajectory, reference_loss: Any, probs: Any, shape: tuple[int, ...]) -> Result:
    """[t m s ...] with pixels and classes last -> [1 s m ...] with classes first and each loss twice."""

    def maps(value: Any) -> np.ndarray:
        value = np.asarray(value)
        return np.moveaxis(value.reshape(*value.shape[:-2], *shape, value.shape[-1]), -1, -1 - len(shape))

    def twice(value: Any) -> np.ndarray:
        return np.repeat(np.asarray(value).swapaxes(1, 2)[..., None], 2, -1)

    return Result(
        maps(trajectory.probs).swapaxes(1, 2),
        twice(trajectory.fit_loss),
        twice(trajectory.penalty),
        twice(trajectory.objective),
        np.asarray(reference_loss)[:, None],
        np.moveaxis(np.asarray(probs), -1, 1),
        maps(best_prediction(trajectory)),
    )


def _check_states(given: Case) -> None:
    """The weights of the searched models, after the first step and at the end, where the case has them.

    A bias in front of a BatchNorm has no gradient but rounding, which Adam turns into steps of full size: it and the
    running mean behind it are left out. The same happens to single weights whose gradient is nearly 0, so that the rest
    is compared in the mean.
    """
    model, data, config = _model(given, double=True), given.data, given.config
    fit = fit_data(model, jnp.asarray(data["images"], jnp.float64), jnp.asarray(data["masks"], jnp.int32))
    prepared = prepare(model, fit, config)
    image = jnp.asarray(data["test_image"], jnp.float64)
    frozen = Frozen(model.params, model.stats, image, prepared.fit, prepared.fit_labels, prepared.reference_loss, prepared.bound)
    setup = Setup.of(model.network, prepared.procedure, image.shape[1:-1])
    advance = jax.jit(step, static_argnums=0)
    points = jnp.arange(data["first_mask"].size)
    names = sorted({name.split("/")[0] for name in given.states})
    for name in names:
        member = int(name.removeprefix("model"))
        target = Target(
            points, jnp.asarray(data["target_masks"][member].reshape(-1), jnp.int32), jnp.full(points.shape, 1 / points.size)
        )
        state = begin(setup, frozen)
        for s, (batch, coefficient) in enumerate(zip(*prepared.steps, strict=True)):
            noise = jax.tree.map(lambda masks, s=s, m=member: masks[0, m, s], _noise(given))
            inputs = StepInputs(
                jnp.asarray(batch), jnp.asarray(coefficient, jnp.float32), jnp.asarray(config.learning_rate, jnp.float32), noise
            )
            state, _ = advance(setup, frozen, target, state, inputs)
            moments = ["after_step1"] * (s == 0) + ["final"] * (s + 1 == len(prepared.steps.batch))
            for moment in moments:
                _assert_state(given, state, f"{name}/{moment}/")


def _assert_state(given: Case, state: Any, prefix: str) -> None:
    expected = {n.removeprefix(prefix): v for n, v in given.states.items() if n.startswith(prefix)}
    expected = {n: v for n, v in expected.items() if not n.endswith("num_batches_tracked")}
    params, stats = from_torch(given.network, given.weights | expected)
    norms = {n.removesuffix("1.running_mean") for n in stats if n.endswith(".running_mean")}
    left_out = {f"{n}0.bias" for n in norms} | {f"{n}1.running_mean" for n in norms}
    if "after_step1" in prefix:
        left_out |= stats.keys()  # taken before the recording pass moves them once more
    moved = {**state.z, **state.stats}
    for name, value in {**params, **stats}.items():
        if name in expected and name not in left_out:
            reference = np.asarray(value)
            deviation = float(np.abs(np.asarray(moved[name]) - reference).mean())
            limit = WEIGHTS * given.config.learning_rate if name in params else STATISTICS * float(np.abs(reference).mean())
            assert deviation <= limit, f"{prefix}{name}: mean deviation {deviation:.2e}, allowed {limit:.2e}"


@functools.partial(jax.jit, static_argnums=0)
def _logits(network: Network, params: Any, stats: Any, image: Any) -> Any:
    return network.apply(params, stats, image)[0]


def _model(given: Case, *, double: bool) -> SegmentationModel:
    params, stats = from_torch(given.network, given.weights)
    if double:
        params, stats = as_double((params, stats))
    return SegmentationModel(given.network, params, stats)


def _noise(given: Case) -> Any:
    """Recorded masks `[t m s b channels]`, one a layer, for each of the three passes of a step."""
    if given.noise is None:
        return None
    return tuple(
        tuple(jnp.asarray(given.noise[p][None, :, :, layer], jnp.float32) for layer in range(given.noise[p].shape[2]))
        for p in PASSES
    )


def _read(golden: Path, case: str) -> Case:
    folder = golden / FOLDER / case
    meta = next(c for c in _index(golden) if c["name"] == case)
    noise = _arrays(folder / "dropout_masks.npz") or None
    network = Network.create("att_unet", **{**meta["kwargs"], "decoder_drop": DROP if noise else 0.0})
    data = _arrays(folder / "data.npz")
    last = {n: np.moveaxis(data[n], -3, -1) for n in ("images", "test_image", "ref_logits")}
    double = {n.removesuffix("_f64"): v for n, v in _arrays(folder / "result_f64.npz").items()}
    return Case(
        meta,
        network,
        _arrays(folder / "weights.npz"),
        data | last,
        _arrays(folder / "result.npz"),
        double or None,
        noise,
        _arrays(folder / "adv_states.npz"),
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; none where a case lacks it."""
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _index(golden: Path) -> list[dict[str, Any]]:
    index = json.loads((golden / FOLDER / "index.json").read_text())
    return [case for case in index if (golden / FOLDER / case["name"]).is_dir()]
