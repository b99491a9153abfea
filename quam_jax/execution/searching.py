"""From a model, its fit data and an image to a Trajectory: what is shared is prepared once, then the right way is taken."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..compilation import jit
from ..config import ExecutionConfig, SearchConfig
from ..model import Network, Parameters, SegmentationModel, pad_to_multiple
from ..search import Frozen, Procedure, Record, Setup, StepPlan, Target, plan_steps, slack_bound
from ..space import Space, parse_space
from ..types import FitData, Targets, Trajectory
from .heads import is_for_heads, search_head_targets
from .members import Job, run_members
from .patches import patch_radius, search_patches
from .plan import choose_plan


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
    return Prepared(model, config, space, jax.tree.map(lambda *leaves: jnp.stack(leaves), *activations), fit.labels,
                    fit.reference_loss, slack_bound(fit.reference_loss, config), plan_steps(config, images.shape[0]))


def search(model: SegmentationModel, image: Float[Array | np.ndarray, "*space i"], fit: FitData, *, targets: Targets,
           config: SearchConfig, key: Key[Array, ""], execution: ExecutionConfig | None = None) -> Trajectory:
    """Search adversarial models for every target of one image.

    Returns the recorded steps, one axis of `steps`; the iterates exclude the reference itself. With many images, call
    `prepare` once and `search_prepared` for each. Raises ValueError as `prepare` does.
    """
    return search_prepared(prepare(model, fit, config), image, targets, key=key, execution=execution)


def search_prepared(prepared: Prepared, image: Float[Array | np.ndarray, "*space i"], targets: Targets, *,
                    key: Key[Array, ""], execution: ExecutionConfig | None = None, noise: Any = None) -> Trajectory:
    """`search` with the shared part already prepared.

    Pixels and regions in the space `head` run as linear heads side by side, pixels in `last_block` on patches, where the
    network allows it; everything else runs as whole networks. `noise` replaces drawn dropout masks by recorded ones: for
    the fit, image and recording pass a tuple with one array `[t m s b channels]` a dropout layer. ValueError for the
    solver `line_search` where there are no linear heads.
    """
    model, config = prepared.model, prepared.config
    execution = execution or ExecutionConfig()
    shape = tuple(image.shape[:-1])
    with jax.default_matmul_precision(execution.precision):
        padded = pad_to_multiple(jnp.asarray(image, image.dtype)[None], model.network, leading=1)
        activation = _activations(model.network, prepared.space, model.params, model.stats, padded)
        fit = FitData(prepared.fit, prepared.fit_labels, prepared.reference_loss)
        if is_for_heads(prepared.space, model.network, config, targets):
            return search_head_targets(model, activation, fit, targets, shape=shape, config=config, steps=prepared.steps,
                                       key=key, execution=execution)
        if config.solver == "line_search":
            raise ValueError("solver: line_search is for pixels and regions in the space head of a network that ends in a "
                             f"1x1 convolution; got space {config.space} and {targets.points.shape[0]} targets")
        frozen = Frozen(model.params, model.stats, activation, *fit, prepared.bound)
        setup = Setup(model.network, prepared.space, Procedure.of(config, compute=execution.compute), shape)
        radius = patch_radius(prepared.space, model.network, config, targets, activation)
        if radius is not None:
            records = search_patches(setup, frozen, fit, targets, radius=radius, config=config, steps=prepared.steps, key=key,
                                     execution=execution)
        else:
            records = _search_networks(setup, frozen, targets, prepared, key=key, execution=execution, noise=noise)
    leading = targets.labels.shape[:2]
    return Trajectory(*(leaf.reshape(*leading, *leaf.shape[1:]) for leaf in records))


def _search_networks(setup: Setup, frozen: Frozen, targets: Targets, prepared: Prepared, *, key: Key[Array, ""],
                     execution: ExecutionConfig, noise: Any) -> Record:
    def draw(job: Job, s: int) -> Any:
        if noise is None and setup.procedure.train:
            return functools.reduce(jax.random.fold_in, (*job, s), key)
        return jax.tree.map(lambda masks: masks[(*job, s)], noise)

    def targets_of(part: list[Job]) -> Target:
        rows, members = np.array(part).T
        return Target(targets.points[rows], targets.labels[rows, members], targets.weights[rows])

    jobs = list(itertools.product(range(targets.points.shape[0]), range(targets.labels.shape[1])))
    plan = choose_plan(execution, members=len(jobs))
    return run_members(setup, frozen, targets_of, jobs, prepared.steps, config=prepared.config, plan=plan, draw=draw)
