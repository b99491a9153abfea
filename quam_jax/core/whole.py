"""Searches of whole networks: every (target, member) of every image with its views, laid out and run together."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from .compilation import jit
from .given import at_targets, view_given, view_others, with_views
from .layout.choose import Layout, choose_layout
from .layout.chunk import Job
from .layout.fitting import views_at_once
from .layout.members import run_members
from .layout.work import pass_operations
from .schedule import StepPlan
from .setup import Frozen, Record, Setup, Target
from .space import Activation
from .types import Targets, Trajectory, ViewMean
from .views import Look

OnKept = Callable[..., None]  # of image, target, member and what was moved


def search_networks(
    setup: Setup,
    frozen: Frozen,
    images: Sequence[Array | np.ndarray],
    activations: Sequence[Activation],
    targets: Sequence[Targets],
    look: Look,
    *,
    steps: StepPlan,
    rate: float,
    keys: Sequence[Key[Array, ""]],
    layout: Layout,
    noise: Any,
    on_kept: OnKept | None,
) -> list[Trajectory]:
    """What was recorded of every image."""
    count, members = targets[0].labels.shape[:2]
    alone = len(activations) == 1
    operations = pass_operations(setup, frozen)
    given: list[ViewMean | None] = [None] * len(images)
    others: list[ViewMean | None] = [None] * len(images)
    viewed: list[Any] = [None] * len(images)
    if look.views:
        setup = setup._replace(views=look.views, view_all=look.broken_too)
        given_setup = setup._replace(views_at_once=views_at_once(setup, operations))
        setup = setup._replace(views_each=look.each)
        setup = setup._replace(views_at_once=views_at_once(setup, operations))
        for i, image in enumerate(images):
            own = with_views(given_setup, frozen._replace(image=activations[i]), image, keys[i])
            viewed[i], given[i] = own.viewed, at_targets(view_given(given_setup, own), targets[i].points)
            further = view_others(given_setup, own, look)
            others[i] = None if further is None else at_targets(further, targets[i].points)
        frozen = frozen._replace(viewed=viewed[0])

    def draw(job: Job, s: int) -> Any:
        image, *place = job
        if noise is None and setup.train:
            return functools.reduce(jax.random.fold_in, (*place, s), keys[image])
        return jax.tree.map(lambda masks: masks[(*place, s)], noise)

    def targets_of(part: list[Job]) -> Target:
        if alone:
            _, rows, columns = np.array(part).T
            return Target(targets[0].points[rows], targets[0].labels[rows, columns], targets[0].weights[rows])
        each = [
            Target(targets[i].points[t], targets[i].labels[t, m], targets[i].weights[t], activations[i], viewed[i])
            for i, t, m in part
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    jobs: list[Job] = list(itertools.product(range(len(activations)), range(count), range(members)))
    chosen = choose_layout(layout, members=len(jobs), operations=operations)
    kept = None if on_kept is None else lambda job, z: on_kept(*job, z)
    record = run_members(
        setup,
        frozen,
        targets_of,
        jobs,
        steps,
        rate=rate,
        layout=chosen,
        draw=draw,
        operations=operations,
        asked=layout,
        on_kept=kept,
    )
    each = count * members
    records = [record]
    if not alone:
        records = [jax.tree.map(lambda leaf, i=i: leaf[i * each : (i + 1) * each], record) for i in range(len(activations))]
    return [as_trajectory(*one) for one in zip(records, targets, given, others, strict=True)]


def as_trajectory(record: Record, asked: Targets, given: ViewMean | None = None, others: ViewMean | None = None) -> Trajectory:
    """The records of one image `[members s ...]` by target and member."""
    joined = _by_target(record, asked.labels.shape[0])
    return Trajectory(**joined._asdict(), given=given, others=others)


@jit(static_argnames="targets", donate_argnames="record")
def _by_target(record: Record, targets: int) -> Record:
    """The records with a leading axis for the targets, in place."""
    return jax.tree.map(lambda leaf: leaf.reshape(targets, -1, *leaf.shape[1:]), record)
