"""From a model, its fit data and an image to a Trajectory: what is shared is prepared once, then the right way is taken."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..config import ExecutionConfig, SearchConfig
from ..models.model import Network, Parameters, SegmentationModel, pad_to_multiple
from .compilation import jit
from .layout.heads import is_for_heads, search_head_targets
from .layout.members import Job, run_members
from .layout.patches import patch_radius, search_patches
from .layout.plan import choose_plan
from .space import Space, parse_space
from .step import Frozen, Procedure, Record, Setup, StepPlan, Target, plan_steps, slack_bound
from .types import FitData, Targets, Trajectory


class Prepared(NamedTuple):
    """What every case of a run shares: the model, what moves, the fit batches in front of it, and the step plan."""

    model: SegmentationModel
    config: SearchConfig
    space: Space
    fit: Any
    fit_labels: Array
    reference_loss: Array
    bound: Array
    steps: StepPlan

    @property
    def recorded_loss(self) -> Float[np.ndarray, " s"]:
        """The given network's loss on the fit batch that each record of a search is measured on."""
        later = 0 if self.config.record == "after" else 1  # the record of step s was measured on the batch of step s + later
        batches = np.append(self.steps.batch, (self.steps.batch[-1] + 1) % len(self.reference_loss))[later:]
        return np.asarray(self.reference_loss)[batches]


@jit(static_argnames=("network", "space"))
def _activations(network: Network, space: Space, params: Parameters, stats: Parameters, images: Array) -> Array:
    return space.prepare(network, params, stats, images)


def prepare(model: SegmentationModel, fit: FitData, config: SearchConfig) -> Prepared:
    """Lay out the steps and run the frozen part of the network over the fit batches, once for all cases.

    ValueError if the space does not exist in the network, or there are too few fit batches for the plan.
    """
    space = parse_space(config.space, model.network)
    Procedure.of(config)
    images = pad_to_multiple(fit.images, model.network, leading=2)
    if images.shape[2:-1] != fit.labels.shape[2:]:
        raise ValueError(f"fit data: expected sides that the network can take, got {fit.labels.shape[2:]} (use fit_data)")
    activations = [_activations(model.network, space, model.params, model.stats, batch) for batch in images]
    return Prepared(
        model,
        config,
        space,
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *activations),
        fit.labels,
        fit.reference_loss,
        slack_bound(fit.reference_loss, config),
        plan_steps(config, images.shape[0]),
    )


def search(
    model: SegmentationModel,
    image: Float[Array | np.ndarray, "*space i"],
    fit: FitData,
    *,
    targets: Targets,
    config: SearchConfig,
    key: Key[Array, ""],
    execution: ExecutionConfig | None = None,
) -> Trajectory:
    """Search adversarial models for every target of one image.

    Returns the recorded steps, one axis of `steps`; the iterates exclude the reference itself. With many images, call
    `prepare` once and `search_prepared` for each. Raises ValueError as `prepare` does.
    """
    return search_prepared(prepare(model, fit, config), image, targets, key=key, execution=execution)


def search_prepared(
    prepared: Prepared,
    image: Float[Array | np.ndarray, "*space i"],
    targets: Targets,
    *,
    key: Key[Array, ""],
    execution: ExecutionConfig | None = None,
    noise: Any = None,
) -> Trajectory:
    """`search` with the shared part already prepared.

    Pixels and regions in the space `head` run as linear heads side by side, pixels in `last_block` on patches, where the
    network allows it; everything else runs as whole networks. `noise` replaces drawn dropout masks by recorded ones: for
    the fit, image and recording pass a tuple with one array `[t m s b channels]` a dropout layer. ValueError for the
    solver `line_search` where there are no linear heads.
    """
    return _search(prepared, [image], [targets], keys=[key], execution=execution, noise=noise)[0]


def search_images(
    prepared: Prepared,
    images: Sequence[Float[Array | np.ndarray, "*space i"]],
    targets: Sequence[Targets],
    *,
    keys: Sequence[Key[Array, ""]],
    execution: ExecutionConfig | None = None,
) -> list[Trajectory]:
    """`search_prepared` for several images of one shape with as many targets each: members of all of them run together.

    ValueError as there, and for images of several shapes.
    """
    shapes = {(np.shape(image), np.shape(asked.points)) for image, asked in zip(images, targets, strict=True)}
    if len(shapes) != 1:
        raise ValueError(f"images: expected images of one shape with as many targets and points each, got {sorted(shapes)}")
    return _search(prepared, images, targets, keys=keys, execution=execution)


def _search(
    prepared: Prepared,
    images: Sequence[Array | np.ndarray],
    targets: Sequence[Targets],
    *,
    keys: Sequence[Key[Array, ""]],
    execution: ExecutionConfig | None,
    noise: Any = None,
) -> list[Trajectory]:
    model, config = prepared.model, prepared.config
    execution = execution or ExecutionConfig()
    shape = tuple(images[0].shape[:-1])
    with jax.default_matmul_precision(config.precision):
        activations = [
            _activations(
                model.network,
                prepared.space,
                model.params,
                model.stats,
                pad_to_multiple(jnp.asarray(image, image.dtype)[None], model.network, leading=1),
            )
            for image in images
        ]
        fit = FitData(prepared.fit, prepared.fit_labels, prepared.reference_loss)
        if is_for_heads(prepared.space, model.network, config, targets[0]):
            return [
                search_head_targets(
                    model, activation, fit, asked, shape=shape, config=config, steps=prepared.steps, key=key, execution=execution
                )
                for activation, asked, key in zip(activations, targets, keys, strict=True)
            ]
        if config.solver == "line_search":
            raise ValueError(
                "solver: line_search is for pixels and regions in the space head of a network that ends in a "
                f"1x1 convolution; got space {config.space} and {targets[0].points.shape[0]} targets"
            )
        frozen = Frozen(model.params, model.stats, activations[0], *fit, prepared.bound)
        setup = Setup(model.network, prepared.space, Procedure.of(config, compute=config.compute), shape)
        radius = patch_radius(prepared.space, model.network, config, targets[0], activations[0])
        if radius is not None:
            records = [
                search_patches(
                    setup,
                    frozen._replace(image=activation),
                    fit,
                    asked,
                    radius=radius,
                    config=config,
                    steps=prepared.steps,
                    key=key,
                    execution=execution,
                )
                for activation, asked, key in zip(activations, targets, keys, strict=True)
            ]
        else:
            records = _search_networks(setup, frozen, activations, targets, prepared, keys=keys, execution=execution, noise=noise)
    leading = targets[0].labels.shape[:2]
    return [Trajectory(*(leaf.reshape(*leading, *leaf.shape[1:]) for leaf in record)) for record in records]


def _search_networks(
    setup: Setup,
    frozen: Frozen,
    activations: Sequence[Any],
    targets: Sequence[Targets],
    prepared: Prepared,
    *,
    keys: Sequence[Key[Array, ""]],
    execution: ExecutionConfig,
    noise: Any,
) -> list[Record]:
    """The records of every image, each of the (target, member) in order."""
    count, members = targets[0].labels.shape[:2]
    alone = len(activations) == 1

    def draw(job: Job, s: int) -> Any:
        image, *place = job
        if noise is None and setup.procedure.train:
            return functools.reduce(jax.random.fold_in, (*place, s), keys[image])
        return jax.tree.map(lambda masks: masks[(*place, s)], noise)

    def targets_of(part: list[Job]) -> Target:
        if alone:
            _, rows, columns = np.array(part).T
            return Target(targets[0].points[rows], targets[0].labels[rows, columns], targets[0].weights[rows])
        each = [Target(targets[i].points[t], targets[i].labels[t, m], targets[i].weights[t], activations[i]) for i, t, m in part]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    jobs: list[Job] = list(itertools.product(range(len(activations)), range(count), range(members)))
    plan = choose_plan(execution, members=len(jobs))
    record = run_members(setup, frozen, targets_of, jobs, prepared.steps, config=prepared.config, plan=plan, draw=draw)
    each = count * members
    return [jax.tree.map(lambda leaf, i=i: leaf[i * each : (i + 1) * each], record) for i in range(len(activations))]
