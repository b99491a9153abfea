"""What is asked of a network in memory when it is wrapped, by one call on a small image and traces of others."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..data.records import digest, digest_arrays
from .arrays import as_numpy
from .frameworks import Adapted, Flat
from .split import Traced, last_weights, trace
from .wrapped import Call, WrappedNetwork

MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
LEAST = {2: 33, 3: 17}  # pixels a side at least of the images that are tried
ALIKE = 1e-3  # of the range of the logits: an image alone, and beside another
CUT = 1e-4  # of the range of the logits: whole, and in two parts


class Looked(NamedTuple):
    """A network that was looked at, without its cuts; the small image it was asked with, and its equations."""

    network: WrappedNetwork
    image: Float[np.ndarray, "1 *space i"]
    traced: Traced
    notes: tuple[str, ...]


def is_first(channels: str) -> bool:
    """Whether channels come first; ValueError for anything but first and last."""
    if channels not in ("first", "last"):
        raise ValueError(f"channels: expected first or last, got {channels!r}")
    return channels == "first"


def channels_last(adapted: Adapted) -> Call:
    """The call on batches with channels last, in and out."""
    own, first = adapted.call, adapted.channels_first

    def on_batch(params: Flat, stats: Flat, images: Any) -> Any:
        if adapted.batched:
            return own(params, stats, images)
        return jax.vmap(lambda image: own(params, stats, image))(images)

    def call(params: Flat, stats: Flat, images: Any) -> Any:
        logits = on_batch(params, stats, jnp.moveaxis(images, -1, 1) if first else images)
        return jnp.moveaxis(logits, 1, -1) if first and getattr(logits, "ndim", 0) == images.ndim else logits

    return call


def example_image(example: Any, adapted: Adapted) -> Float[np.ndarray, "1 *space i"]:
    """The first image of an example, channels last; ValueError for what is none."""
    array = as_numpy(example)
    axes, order = (4, 5) if adapted.batched else (3, 4), "[i *space]" if adapted.channels_first else "[*space i]"
    order = order.replace("[", "[b ") if adapted.batched else order
    if array.ndim not in axes:
        raise ValueError(
            f"{adapted.name}: example: expected {order} with 2 or 3 spatial axes, as the network is called, got shape "
            f"{array.shape}" + ("; add the axis of the batch: example[None]" if array.ndim == axes[0] - 1 else "")
        )
    batch = array if adapted.batched else array[None]
    if 0 in batch.shape or not np.isfinite(batch).all():
        raise ValueError(
            f"{adapted.name}: example: expected finite values, got shape {array.shape} with NaN, infinity or nothing"
        )
    return (np.moveaxis(batch, 1, -1) if adapted.channels_first else batch)[:1].astype(np.float32)


def look(
    call: Call, adapted: Adapted, image: np.ndarray, *, classes: int | None, size_multiple: int | Sequence[int] | None
) -> Looked:
    """Ask a network what it is, by traces and one small call; ValueError, in one line, for what cannot be searched."""
    where, own, other = adapted.name, abstract(adapted.params), abstract(adapted.stats)
    count = _logit_channels(call, own, other, image.shape, adapted)
    if classes is not None and count != classes:
        raise ValueError(f"{where}: expected logits of {classes} channels, as classes says, got {count}")
    multiple, fixed = _find_multiple(call, own, other, image.shape, size_multiple, where=where)
    small = image if fixed else _cropped(image, multiple)
    _check_values(call, adapted, small)
    traced = trace(call, own, other, jax.ShapeDtypeStruct(small.shape, jnp.float32))
    arguments: dict[str, Any] = {
        "kind": adapted.kind,
        "in_channels": image.shape[-1],
        "n_classes": count,
        "rank": image.ndim - 2,
        "size_multiple": multiple,
        "program": _program(call, own, other, small.shape, traced),
    }
    network = WrappedNetwork(
        where,
        tuple(arguments.items()),
        call=call,
        parameters=tuple((name, tuple(value.shape)) for name, value in own.items()),
        statistics=tuple((name, tuple(value.shape)) for name, value in other.items()),
        fixed=fixed,
        channels_first=adapted.channels_first,
    )
    sides = "x".join(map(str, multiple))
    return Looked(network, small, traced, (f"takes images of {sides} alone; otherwise say size_multiple",) if fixed else ())


def abstract(values: Flat) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of arrays."""
    return {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in values.items()}


def _traced_shape(call: Call, own: Any, other: Any, shape: Sequence[int]) -> tuple[int, ...]:
    found = jax.eval_shape(call, own, other, jax.ShapeDtypeStruct(tuple(shape), jnp.float32))
    return tuple(getattr(found, "shape", ()))


def _logit_channels(call: Call, own: Any, other: Any, shape: tuple[int, ...], adapted: Adapted) -> int:
    where, asked = adapted.name, _as_asked(shape, adapted)
    try:
        found = jax.eval_shape(call, own, other, jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception as error:  # a network of somebody else may fail in any way; the edge needs one clear line
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"{where}: cannot be called with an example of shape {asked} ({type(error).__name__}: {reason[:300]}); expected the "
            "images that it takes, channels as `channels` says, further arguments in `arguments`"
        ) from error
    logits = tuple(getattr(found, "shape", ()))
    if not hasattr(found, "shape"):
        raise ValueError(
            f"{where}: expected logits, got {type(found).__name__}; wrap a function that picks them, such as "
            "lambda params, x: apply(params, x)[0]"
        )
    if len(logits) == len(shape) and logits[:-1] == shape[:-1]:
        return logits[-1]
    hint = ""
    if len(logits) == len(shape) and logits[2:] == shape[1:-1]:
        hint = "; it looks like channels first: channels='first'"
    elif len(logits) == len(shape) - 1 and logits == shape[:-1]:
        hint = "; of one class add the axis of channels: logits[..., None]"
    elif len(logits) == len(shape):
        hint = "; logits of other sides must be resized to the image's inside the function"
    raise ValueError(
        f"{where}: expected logits of the image's sides, {_as_asked((*shape[:-1], -1), adapted)}, got "
        f"{_as_asked(logits, adapted) if len(logits) == len(shape) else list(logits)}{hint}"
    )


def _as_asked(shape: Sequence[int], adapted: Adapted) -> str:
    """A shape with channels last as the network has it, -1 as c."""
    values = ["c" if n == -1 else str(n) for n in shape]
    values = [values[0], values[-1], *values[1:-1]] if adapted.channels_first else values
    return f"[{' '.join(values if adapted.batched else values[1:])}]"


def _find_multiple(
    call: Call, own: Any, other: Any, shape: tuple[int, ...], asked: int | Sequence[int] | None, *, where: str
) -> tuple[tuple[int, ...], bool]:
    """What sides must be a multiple of, and whether no other sides than the example's work at all."""
    rank = len(shape) - 2
    if asked is not None:
        multiple = (asked,) * rank if isinstance(asked, int) else tuple(asked)
        if len(multiple) != rank or min(multiple) < 1:
            raise ValueError(f"{where}: size_multiple: expected a number >= 1, or {rank} of them, got {asked!r}")
        if not _takes(call, own, other, shape, multiple):
            raise ValueError(
                f"{where}: size_multiple: images whose sides are multiples of {multiple} give no logits of their sides"
            )
        return multiple, False
    for number in MULTIPLES:
        if _takes(call, own, other, shape, (number,) * rank):
            return (number,) * rank, False
    return shape[1:-1], True


def _takes(call: Call, own: Any, other: Any, shape: tuple[int, ...], multiple: tuple[int, ...]) -> bool:
    """Whether a network gives logits of the image's sides for several that are multiples, odd ones among them."""
    least = LEAST[len(multiple)]
    for more in (0, 1, 2):
        sides = [m * (math.ceil(least / m) + more + place % 2) for place, m in enumerate(multiple)]
        try:
            found = _traced_shape(call, own, other, (1, *sides, shape[-1]))
        except Exception:  # it takes other sizes, and says so in its own way
            return False
        if found[:-1] != (1, *sides):
            return False
    return True


def _cropped(image: np.ndarray, multiple: tuple[int, ...]) -> np.ndarray:
    """The image at sides that the network takes, small ones."""
    least = LEAST[len(multiple)]
    sides = [m * math.ceil(least / m) for m in multiple]
    padding = [(0, max(0, n - side)) for n, side in zip(sides, image.shape[1:-1], strict=True)]
    padded = np.pad(image, [(0, 0), *padding, (0, 0)], mode="wrap")
    return padded[(slice(None), *(slice(n) for n in sides))]


def _check_values(call: Call, adapted: Adapted, image: np.ndarray) -> None:
    """One call on two images: finite, no probabilities, and neither sees the other."""
    where = adapted.name
    pair = np.concatenate([image, -0.5 * image[:, ::-1] + 0.25])
    run = jax.jit(call)
    both, alone = np.asarray(run(adapted.params, adapted.stats, pair)), np.asarray(run(adapted.params, adapted.stats, image))
    if not np.isfinite(both).all():
        raise ValueError(f"{where}: expected finite logits of the example, got NaN or infinity")
    span = float(np.ptp(both)) or 1.0
    if not np.allclose(both[:1], alone, atol=ALIKE * span, rtol=0):
        raise ValueError(
            f"{where}: the logits of an image depend on what else is in its batch, by up to "
            f"{np.abs(both[:1] - alone).max() / span:.0%} of their range: batch statistics or dropout are on; wrap it in "
            "evaluation mode (arguments={'train': False} or what it calls it)"
        )
    sums = both.sum(-1)
    if both.min() >= 0 and both.max() <= 1 and (both.shape[-1] == 1 or np.allclose(sums, 1, atol=1e-4)):
        end = "sigmoid" if both.shape[-1] == 1 else "softmax"
        raise ValueError(
            f"{where}: expected logits, got values from 0 to 1{'' if end == 'sigmoid' else ' that sum to 1'}: return what goes "
            f"into the {end}"
        )


def find_blocks(
    network: WrappedNetwork, traced: Traced, adapted: Adapted, image: np.ndarray, *, head: str | None, last_block: str | None
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The parameters behind every cut, each cut tried; a head that nobody asked for may be missing, which is told."""
    names, blocks, notes = list(adapted.params), dict[str, tuple[str, ...]](), list[str]()
    chosen = _matching(names, head, "head", adapted.name) if head is not None else tuple(last_weights(traced))
    if chosen:
        reason = _uncut(network, "head", chosen, adapted, image)
        if reason and head is not None:
            raise ValueError(f"{adapted.name}: head: {reason}")
        if not reason:
            blocks["head"] = chosen
            notes += [] if head is not None else [f"head: {', '.join(chosen)}, the last kernel that the image meets"]
    if "head" not in blocks:
        notes.append("no cut head: no last layer was found that can be cut off; name its parameters: head='REGEX'")
    if last_block is not None:
        own = _matching(names, last_block, "last_block", adapted.name)
        block = tuple(name for name in names if name in own or name in blocks.get("head", ()))
        if reason := _uncut(network, "last_block", block, adapted, image):
            raise ValueError(f"{adapted.name}: last_block: {reason}")
        blocks["last_block"] = block
    return blocks, notes


def _matching(names: Sequence[str], pattern: str, what: str, where: str) -> tuple[str, ...]:
    """The names that are a path, lie under it, or match it as a regular expression from their start."""
    found = tuple(name for name in names if name == pattern or name.startswith(f"{pattern}."))
    try:
        found = found or tuple(name for name in names if re.match(pattern, name))
    except re.error as error:
        raise ValueError(f"{where}: {what}: expected a path or a regular expression, got {pattern!r} ({error})") from None
    if not found:
        shown = ", ".join(names if len(names) < 8 else [*names[:3], "...", *names[-3:]])
        raise ValueError(f"{where}: {what}: no parameter matches {pattern!r}; there are {shown}")
    return found


def _uncut(network: WrappedNetwork, cut: str, names: tuple[str, ...], adapted: Adapted, image: np.ndarray) -> str:
    """Why a network cannot be cut in front of some parameters; empty where it can, and both parts give the whole's logits."""
    tried = replace(network, blocks=((cut, names),))
    try:
        tried.scale(cut)
        activation = tried.trunk(adapted.params, adapted.stats, jnp.asarray(image), cut=cut)
        found, _ = tried.tail(adapted.params, adapted.stats, activation, cut=cut)
    except (ValueError, NotImplementedError) as error:
        return str(error).removeprefix(f"{network.architecture}: ")
    whole = np.asarray(network.call(adapted.params, adapted.stats, jnp.asarray(image)))
    if not np.allclose(found, whole, atol=CUT * (float(np.ptp(whole)) or 1.0), rtol=0):
        return "trunk and tail do not give the logits of the whole network"
    return ""


def _program(call: Call, own: Any, other: Any, shape: tuple[int, ...], traced: Traced) -> str:
    """SHA-256 of what a network computes: its compiled program's text, and the constants in it."""
    text = jax.jit(call).lower(own, other, jax.ShapeDtypeStruct(shape, jnp.float32)).as_text()
    constants = {str(n): np.asarray(value) for n, value in enumerate(traced.constants.values())}
    return digest(hashlib.sha256(text.encode()).hexdigest(), digest_arrays(constants))
