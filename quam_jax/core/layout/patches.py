"""Pixels in the space `last_block`: each on the patch of activations that it can see, against patches around fit points.

What a pixel's logits depend on behind the cut is a window as wide as the block's receptive field; the convolutions run
over it without padding, so that it shrinks to the one pixel. Where the image ends, the window is moved inside and padded as
the whole image is. A fit patch explains CROP x CROP pixels.
"""

import functools
import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..compilation import jit
from ..head.problem import fit_points
from ..network import CutNetwork, Parameters, described, like, on_patches
from ..schedule import StepPlan
from ..setup import Frozen, Procedure, Record, Setup, Target
from ..space import Activation, TailSpace
from ..types import FitData, Targets
from .choose import Layout, choose_layout
from .chunk import Job
from .members import run_members

PROBE = 33  # pixels a side of the activation on which the receptive field is read off
CHUNK = 128  # pixels side by side
CROP = 4  # pixels a side that a fit patch explains: neighbours share most of what is computed
TOO_WIDE = 11  # windows of more pixels a side than 2 * this + 1 save nothing


def receptive_radius(
    network: CutNetwork, params: Parameters, stats: Parameters, *, cut: str, features: int, rank: int
) -> int | None:
    """How far behind a cut a logit sees, in pixels; None where that is the whole image, or the size changes on the way.

    Read off the gradient of the middle logits in random activations under random weights; asked once of a network.
    """
    kinds = described(params), described(stats)
    return _radius(network, cut, features, rank, *kinds)  # type: ignore[arg-type]  # networks are hashable


@functools.lru_cache(maxsize=32)
def _radius(
    network: CutNetwork, cut: str, features: int, rank: int, params_like: tuple[Any, tuple], stats_like: tuple[Any, tuple]
) -> int | None:
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) / math.sqrt(max(1, math.prod(x.shape[:-1]))), x.dtype), like(params_like)
    )
    stats = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), like(stats_like))
    sides = (PROBE,) * rank
    middle = (0, *(n // 2 for n in sides))
    activation = jnp.asarray(rng.normal(size=(1, *sides, features)), jnp.float32)

    def logits(x: Array) -> Array:
        return network.tail(params, stats, x, cut=cut)[0]

    try:
        whole = jax.jit(logits)(activation)
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(logits(x)[middle]))))(activation)
        with on_patches():
            inner = jax.jit(lambda x: logits(x))(activation)  # a function of its own: traced anew
    except (TypeError, ValueError):  # a tail that takes other sizes, changes them, or takes several activations
        return None
    seen = np.argwhere(np.asarray(jnp.any(gradient[0] != 0, -1)))
    radius = int(np.abs(seen - PROBE // 2).max()) if len(seen) else PROBE
    expected = whole[(slice(None), *(slice(radius, n - radius) for n in sides))]
    if radius > TOO_WIDE or inner.shape != expected.shape or not np.allclose(inner, expected, atol=1e-3 * np.ptp(whole)):
        return None
    return radius


def patch_radius(
    network: Any,
    params: Parameters,
    stats: Parameters,
    procedure: Procedure,
    targets: Targets,
    activation: Activation,
) -> int | None:
    """The radius of a search on patches, or None where this search needs whole images.

    How many pixels are asked does not decide: one keeps the bound on the same drawn patches as a thousand.
    """
    space = procedure.space
    if not (
        isinstance(space, TailSpace)
        and space.cut != "head"
        and targets.points.shape[1] == 1
        and not procedure.train
        and not procedure.record_after
        and isinstance(activation, jax.Array)
    ):
        return None
    radius = receptive_radius(network, params, stats, cut=space.cut, features=activation.shape[-1], rank=activation.ndim - 2)
    return radius if radius is not None and min(activation.shape[1:-1]) >= 2 * radius + CROP else None


def _windows(
    images: Float[Array, "n *space f"], image: Int[Array, " t"], place: Int[Array, "t rank"], *, before: int, side: int
) -> tuple[Float[Array, "t *window f"], Int[Array, "t rank"]]:
    """Windows of `side` pixels that begin `before` pixels in front of each place, moved inside the image, and their corners."""
    window = (side,) * place.shape[1]
    corner = jnp.clip(place - before, 0, jnp.asarray(images.shape[1:-1])[None] - side)

    def cut(index: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(images, (index, *start, 0), (1, *window, images.shape[-1]))[0]

    return jax.vmap(cut)(image, corner), corner


def fit_patches(
    fit: FitData, batch: Int[np.ndarray, " s"], *, radius: int, count: int, key: Key[Array, ""]
) -> tuple[Float[Array, "s b *window f"], Int[Array, "s b *crop"]]:
    """Windows around drawn fit points of every step's batch, and the labels of the CROP pixels a side that they explain."""
    labels = np.asarray(fit.labels)
    flat = fit_points(labels, batch, count=count, key=key)
    image, *place = np.unravel_index(flat.reshape(-1), (labels.shape[0] * labels.shape[1], *labels.shape[2:]))
    windows, corners = _windows(
        fit.images.reshape(-1, *fit.images.shape[2:]),
        jnp.asarray(image),
        jnp.asarray(np.stack(place, -1)),
        before=radius + CROP // 2,
        side=2 * radius + CROP,
    )
    grid = np.indices((CROP,) * len(place))
    explained = [np.asarray(corners)[:, a].reshape(-1, *(1,) * len(place)) + radius + grid[a] for a in range(len(place))]
    crops = labels.reshape(-1, *labels.shape[2:])[(image.reshape(-1, *(1,) * len(place)), *explained)]
    if not (crops >= 0).reshape(len(flat), -1).any(1).all():
        raise ValueError("fit data: expected labelled pixels around the drawn points of every step, got none; raise fit_patches")
    return windows.reshape(*flat.shape, *windows.shape[1:]), jnp.asarray(crops.reshape(*flat.shape, *crops.shape[1:]))


@jit(static_argnames="setup")
def _patch_loss(setup: Setup, params: Parameters, stats: Parameters, patches: Array, labels: Array) -> Array:
    z = setup.space.start(setup.network, params, patches)
    with on_patches():
        return setup.loss.mean(setup.space.logits(setup.network, z, params, stats, patches)[0], labels)


def search_patches(
    setup: Setup,
    frozen: Frozen,
    fit: FitData,
    targets: Targets,
    *,
    radius: int,
    procedure: Procedure,
    steps: StepPlan,
    key: Key[Array, ""],
    layout: Layout,
) -> Record:
    """The records of every (target, member) in order."""
    batch = np.append(steps.batch, (steps.batch[-1] + 1) % len(fit.labels))
    patches, labels = fit_patches(fit, batch, radius=radius, count=procedure.fit_patches, key=key)
    reference_loss = jnp.stack(
        [_patch_loss(setup, frozen.params, frozen.stats, x, y) for x, y in zip(patches, labels, strict=True)]
    )
    image, wanted = frozen.image, np.asarray(targets.labels)
    place = np.stack(np.unravel_index(np.asarray(targets.points)[:, 0], setup.shape), -1)
    frozen = frozen._replace(
        image=image[:, :1],
        fit=patches,
        fit_labels=labels,
        reference_loss=reference_loss,
        bound=procedure.slack.bound(reference_loss),
    )
    jobs = [(t, m) for t in range(wanted.shape[0]) for m in range(wanted.shape[1])]
    at_border = np.any((place < radius) | (place >= np.array(image.shape[1:-1]) - radius), 1)
    # step s draws fit patches of its own, so its batch is s
    own_steps = StepPlan(np.arange(len(steps.batch)), steps.coefficient)

    def targets_of(part: list[Job], shape: tuple[int, ...]) -> Target:
        rows, members = np.array(part).T
        windows, corners = _windows(
            image, jnp.zeros(len(rows), int), jnp.asarray(place[rows]), before=radius, side=2 * radius + 1
        )
        inside = place[rows] - np.asarray(corners)
        points = np.zeros(len(rows), int) if math.prod(shape) == 1 else np.ravel_multi_index(inside.T, shape)
        return Target(points[:, None], wanted[rows, members], np.ones((len(rows), 1), np.float32), windows[:, None])

    def run(part: list[Job], setup: Setup) -> Record:
        chosen = choose_layout(layout, members=len(part))
        devices = min(layout.devices or jax.local_device_count(), len(part))
        if layout.members == "auto":
            chosen = replace(chosen, members="vmap", devices=devices, chunk=min(layout.chunk or CHUNK * devices, len(part)))
        return run_members(
            setup,
            frozen,
            lambda some: targets_of(some, setup.shape),
            part,
            own_steps,
            rate=procedure.learning_rate,
            layout=chosen,
            draw=lambda job, s: None,
        )

    rank = len(setup.shape)
    inner = setup._replace(shape=(1,) * rank, patches="inner")
    border = setup._replace(shape=(2 * radius + 1,) * rank, patches="border")
    groups = [
        (kind, [n for n, job in enumerate(jobs) if at_border[job[0]] == edge]) for kind, edge in ((inner, False), (border, True))
    ]
    records = [run([jobs[n] for n in numbers], kind) for kind, numbers in groups if numbers]
    order = np.argsort(np.concatenate([numbers for _, numbers in groups]))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *records)
