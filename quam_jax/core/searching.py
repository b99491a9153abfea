"""From a network, its fit data and an image to a Trajectory: what is shared is prepared once, then the right layout is taken."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from .compilation import jit
from .fit import part_size, reference_losses
from .given import activations_of
from .layout.choose import AUTO, Layout
from .layout.heads import is_for_heads, search_head_targets
from .layout.patches import patch_radius, search_patches
from .loss import Loss
from .network import Parameters, check_network, pad_to_multiple
from .schedule import StepPlan
from .setup import Frozen, Procedure, Setup
from .solvers import LineSearch, Moving
from .space import Activation, Space
from .types import FitData, Targets, Trajectory
from .views import PLAIN, Look
from .whole import OnKept, as_trajectory, search_networks


class Prepared(NamedTuple):
    """What all cases of one network share: its weights, how it is searched, the fit batches in front of what moves, the steps."""

    network: Any
    params: Parameters
    stats: Parameters
    procedure: Procedure
    fit: Activation
    fit_labels: Array
    reference_loss: Float[Array, " k"]
    bound: Float[Array, " k"]
    steps: StepPlan


def prepare(network: Any, params: Parameters, stats: Parameters, fit: FitData, *, procedure: Procedure | None = None) -> Prepared:
    """Lay out the steps, measure the given network on the fit data and run its frozen part over it, once for all cases.

    ValueError for what is no network, a space that it does not have, fit data that it cannot take, or too few fit batches
    for the schedule.
    """
    procedure = procedure or Procedure()
    check_network(network, params, stats, fit.images[0, 0])
    images = pad_to_multiple(fit.images, network, leading=2)
    if images.shape[2:-1] != fit.labels.shape[2:]:
        raise ValueError(f"fit data: expected sides that the network can take, got {fit.labels.shape[2:]} (use fit_data)")
    jax.eval_shape(lambda p, x: procedure.space.start(network, p, x), params, images[0, :1])  # names what it does not find
    reference = reference_losses(network, params, stats, fit, procedure.loss)
    size = part_size(fit.labels.shape[1:])
    parts = [images[k, start : start + size] for k in range(len(images)) for start in range(0, images.shape[1], size)]
    activations = [activations_of(network, procedure.space, params, stats, part) for part in parts]
    batches = images.shape[:2]
    return Prepared(
        network,
        params,
        stats,
        procedure,
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves).reshape(*batches, *leaves[0].shape[1:]), *activations),
        fit.labels,
        reference,
        procedure.slack.bound(reference),
        procedure.schedule.plan(images.shape[0]),
    )


def search(
    network: Any,
    params: Parameters,
    stats: Parameters,
    image: Float[Array | np.ndarray, "*space i"],
    fit: FitData,
    targets: Targets,
    *,
    key: Key[Array, ""],
    procedure: Procedure | None = None,
    layout: Layout = AUTO,
) -> Trajectory:
    """Search adversarial models for every target of one image.

    Returns the recorded steps, one axis of `steps`; the iterates exclude the reference itself. With many images, call
    `prepare` once and `search_prepared` for each. Raises ValueError as these do.
    """
    prepared = prepare(network, params, stats, fit, procedure=procedure)
    return search_prepared(prepared, image, targets, key=key, layout=layout)


def search_prepared(
    prepared: Prepared,
    image: Float[Array | np.ndarray, "*space i"],
    targets: Targets,
    *,
    key: Key[Array, ""],
    layout: Layout = AUTO,
    noise: Any = None,
) -> Trajectory:
    """`search` with the shared part already prepared.

    Pixels and regions in the space `head` run as linear heads side by side, pixels in another tail on patches, where the
    network allows it; everything else runs as whole networks. `noise` replaces drawn dropout masks by recorded ones: for
    the fit, image and recording pass a tuple with one array `[t m s b channels]` a dropout layer. ValueError for targets
    outside the image, and for the line search where there are no linear heads.
    """
    return _search(prepared, [image], [targets], keys=[key], layout=layout, noise=noise)[0]


def search_images(
    prepared: Prepared,
    images: Sequence[Float[Array | np.ndarray, "*space i"]],
    targets: Sequence[Targets],
    *,
    keys: Sequence[Key[Array, ""]],
    layout: Layout = AUTO,
    look: Look = PLAIN,
    on_kept: OnKept | None = None,
) -> list[Trajectory]:
    """`search_prepared` for several images of one shape with as many targets each: members of all of them run together.

    With views in `look` every recorded model that keeps the bound looks at the image through them, and so do the given network
    and others: see Look and Trajectory. That is for searches of whole networks over weights.

    Where members run as whole networks, `on_kept(image, target, member, z)` is called with what was moved of each: the numbers of
    the feasible record of smallest objective, or the last ones where none is feasible; see `loss_under`. ValueError as there, and
    for images of several shapes.
    """
    shapes = {(np.shape(image), np.shape(asked.points)) for image, asked in zip(images, targets, strict=True)}
    if len(shapes) != 1:
        raise ValueError(f"images: expected images of one shape with as many targets and points each, got {sorted(shapes)}")
    return _search(prepared, images, targets, keys=keys, layout=layout, look=look, on_kept=on_kept)


def loss_under(
    prepared: Prepared,
    z: Moving | None,
    image: Float[Array | np.ndarray, "*space i"],
    labels: Int[Array | np.ndarray, "*space"],
) -> tuple[float, int]:
    """The loss in nats a labelled pixel of an image under moved numbers (None: those given), and how many pixels are labelled."""
    network, params, stats, procedure = prepared[:4]
    x = pad_to_multiple(jnp.asarray(image, jnp.float32)[None], network, leading=1)
    padding = [(0, p - n) for p, n in zip(x.shape[1:-1], labels.shape, strict=True)]
    padded = np.pad(np.asarray(labels, np.int32), padding, constant_values=-1)[None]
    with jax.default_matmul_precision(procedure.precision):
        loss = _loss_under(network, procedure.space, procedure.loss, params, stats, z, x, padded)
    return float(loss), int((padded >= 0).sum())


@jit(static_argnames=("network", "space", "loss"))
def _loss_under(
    network: Any, space: Space, loss: Loss, params: Parameters, stats: Parameters, z: Moving | None, image: Array, labels: Array
) -> Array:
    if z is None:
        return loss.mean(network.apply(params, stats, image)[0], labels)
    activation = space.prepare(network, params, stats, image)
    return loss.mean(space.logits(network, z, params, stats, activation)[0], labels)


def _search(
    prepared: Prepared,
    images: Sequence[Array | np.ndarray],
    targets: Sequence[Targets],
    *,
    keys: Sequence[Key[Array, ""]],
    layout: Layout,
    noise: Any = None,
    look: Look = PLAIN,
    on_kept: OnKept | None = None,
) -> list[Trajectory]:
    network, params, stats, procedure = prepared[:4]
    shape = tuple(images[0].shape[:-1])
    for asked in targets:
        _check_targets(asked, shape)
    with jax.default_matmul_precision(procedure.precision):
        activations = [
            activations_of(
                network,
                procedure.space,
                params,
                stats,
                pad_to_multiple(jnp.asarray(image, image.dtype)[None], network, leading=1),
            )
            for image in images
        ]
        fit = FitData(prepared.fit, prepared.fit_labels)
        if is_for_heads(network, params, stats, procedure, targets[0], shape):
            _require_no_views(look, "pixels and regions in the space head")
            return [
                search_head_targets(
                    network,
                    params,
                    activation,
                    fit,
                    asked,
                    shape=shape,
                    procedure=procedure,
                    steps=prepared.steps,
                    key=key,
                    layout=layout,
                )
                for activation, asked, key in zip(activations, targets, keys, strict=True)
            ]
        if isinstance(procedure.solver, LineSearch):
            raise ValueError(
                "solver: line_search is for pixels and regions in the space head of a network that ends in a 1x1 convolution, "
                f"under cross-entropy; got space {procedure.space} and {targets[0].points.shape[1]} points of {math.prod(shape)}"
            )
        frozen = Frozen(params, stats, activations[0], *fit, prepared.reference_loss, prepared.bound)
        setup = Setup.of(network, procedure, shape)
        radius = patch_radius(network, params, stats, procedure, targets[0], activations[0])
        if radius is not None:
            _require_no_views(look, "pixels in the space last_block")
            records = [
                search_patches(
                    setup,
                    frozen._replace(image=activation),
                    fit,
                    asked,
                    radius=radius,
                    procedure=procedure,
                    steps=prepared.steps,
                    key=key,
                    layout=layout,
                )
                for activation, asked, key in zip(activations, targets, keys, strict=True)
            ]
        else:
            if not procedure.space.constrained:
                _require_no_views(look, "a space of weights and none of images")
            return search_networks(
                setup,
                frozen,
                images,
                activations,
                targets,
                look,
                steps=prepared.steps,
                rate=procedure.learning_rate,
                keys=keys,
                layout=layout,
                noise=noise,
                on_kept=on_kept,
            )
    return [as_trajectory(record, asked) for record, asked in zip(records, targets, strict=True)]


def _require_no_views(look: Look, kind: str) -> None:
    if look.views:
        raise ValueError(f"views: expected none for {kind}, got {', '.join(view.name for view in look.views)}")


def _check_targets(targets: Targets, shape: tuple[int, ...]) -> None:
    points, labels, weights = (tuple(leaf.shape) for leaf in targets)
    if len(labels) != 3 or points != weights or points != (labels[0], labels[2]):
        raise ValueError(
            f"targets: expected points [t p], labels [t m p] and weights [t p], got {points}, {labels} and {weights}"
        )
    if points[1] == math.prod(shape):
        return  # all pixels in order
    indices = np.asarray(targets.points)
    low, high = int(indices.min(initial=0)), int(indices.max(initial=0))
    if low < 0 or high >= math.prod(shape):
        raise ValueError(f"targets: expected points of an image of {math.prod(shape)} pixels, got indices from {low} to {high}")
