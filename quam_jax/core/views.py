"""Views of an image (test-time augmentation, Wang et al. 2019): what they do to the image, and the way back of a prediction.

A flip or a quarter turn is a permutation of pixels, so that its inverse is exact; noise, brightness and blur leave pixels in
place. A network that treats every pixel alike says the same under all changes of place.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Change = Literal["noise", "brighter", "darker", "blur"]
STRENGTH = 0.3  # standard deviations of the image by which noise and brightness change it


@dataclass(frozen=True)
class View:
    """One way to look at an image: axes are flipped, then a plane is turned by quarters, then intensities change.

    `strength` counts standard deviations of the image, by channel: of the noise, or the offset of brightness.
    """

    name: str
    flips: tuple[int, ...] = ()
    turns: int = 0
    plane: tuple[int, int] = (0, 1)
    change: Change | None = None
    strength: float = STRENGTH

    def apply(self, image: Float[Array, "*space i"], key: Key[Array, ""]) -> Float[Array, "*viewed i"]:
        """The image as this view shows it; noise is drawn from the key."""
        seen = jnp.rot90(jnp.flip(image, self.flips), self.turns, self.plane)
        if self.change is None:
            return seen
        if self.change == "blur":
            return _smooth(seen)
        size = self.strength * jnp.std(image, tuple(range(image.ndim - 1)), keepdims=True)
        if self.change == "noise":
            return seen + size * jax.random.normal(key, seen.shape)
        return seen + size if self.change == "brighter" else seen - size

    def invert(self, probs: Float[Array, "*viewed c"]) -> Float[Array, "*space c"]:
        """What a prediction of the view says on the grid of the image."""
        return jnp.flip(jnp.rot90(probs, -self.turns, self.plane), self.flips)


IDENTITY = View("identity")


class Look(NamedTuple):
    """Through which views recorded models look at the image, and whether those that break the bound do too.

    Each looks through `each` of them (0: all), the next model through the next ones. `others` gives further models that look at
    it through all, as what a search would move, one after the other.
    """

    views: tuple[View, ...] = ()
    broken_too: bool = False
    others: Callable[[], Iterable[Any]] | None = None
    each: int = 0


PLAIN = Look()


@dataclass(frozen=True)
class Symmetry:
    """Which changes of place an image takes without changing its shape or what its network was trained on.

    `mirrored` are the axes that may be flipped. `plane` is a pair of axes of equal sides and spacing, which may be turned by
    quarters; None if there is none.
    """

    mirrored: tuple[int, ...] = (0, 1)
    plane: tuple[int, int] | None = (0, 1)

    @staticmethod
    def of(
        space: Sequence[int],
        *,
        spacing: Sequence[float] | None = None,
        mirrored: Sequence[int] | None = None,
        turned: bool = True,
    ) -> "Symmetry":
        """The symmetry of an image of such sides; `spacing` in mm, without it two axes are alike and three are not.

        Of several planes the one of the finest spacing is turned, of equal ones that of the last axes.
        """
        rank = len(space)
        axes = tuple(range(rank)) if mirrored is None else tuple(sorted(mirrored))
        if spacing is None and rank == 2:
            spacing = (1.0, 1.0)
        planes = [(a, b) for a in range(rank) for b in range(a + 1, rank) if space[a] == space[b]]
        if spacing is None or not turned:
            planes = []
        else:
            planes = [(a, b) for a, b in planes if abs(spacing[a] / spacing[b] - 1) < 0.01]
        finest = min(planes, key=lambda p: (round(spacing[p[0]], 6), -p[1], -p[0])) if planes and spacing is not None else None
        return Symmetry(axes, finest)


def named_views(text: str, symmetry: Symmetry) -> tuple[View, ...]:
    """The views that a setting names, without those that the image does not take.

    `none`, `flips` (the image and each axis flipped), `geometric` (flips and turns), `standard` (these, noise, brightness and
    blur), or names with strengths, separated by commas: identity, flip0, rotate1, noise:0.3, brighter, darker, blur. ValueError
    for other names.
    """
    if text == "none":
        return ()
    flips = ("identity", *(f"flip{axis}" for axis in symmetry.mirrored))
    geometric = (*flips, "rotate1", "rotate2", "rotate3")
    names = {"flips": flips, "geometric": geometric, "standard": (*geometric, *get_args(Change))}.get(text)
    asked = [part.strip() for part in text.split(",")] if names is None else list(names)
    views = [_view(part, symmetry, text) for part in asked]
    return tuple(dict.fromkeys(view for view in views if view is not None))


def _view(part: str, symmetry: Symmetry, text: str) -> View | None:
    """The view of a name; None where the image does not take it. A half turn is two flips."""
    name, colon, number = part.partition(":")
    known = ("identity", "flip0", "flip1", "flip2", "rotate1", "rotate2", "rotate3", *get_args(Change))
    try:
        strength = float(number) if colon else STRENGTH
    except ValueError:
        strength = -1.0
    if name not in known or not 0 <= strength < float("inf") or (colon and name not in ("noise", "brighter", "darker")):
        raise ValueError(
            f"views: expected none, flips, geometric, standard or some of {', '.join(known)} with commas between them (noise, "
            f"brighter and darker with a strength, as noise:0.3), got {part!r} in {text!r}"
        )
    if name == "identity":
        return IDENTITY
    if name.startswith("flip"):
        axis = int(name[-1])
        return View(name, flips=(axis,)) if axis in symmetry.mirrored else None
    if name == "rotate2":
        plane = symmetry.plane or symmetry.mirrored[-2:]
        return (
            View(name, turns=2, plane=(plane[0], plane[1])) if set(plane) <= set(symmetry.mirrored) and len(plane) == 2 else None
        )
    if name.startswith("rotate"):
        return None if symmetry.plane is None else View(name, turns=int(name[-1]), plane=symmetry.plane)
    return View(part, change=name, strength=strength)  # type: ignore[arg-type]  # one of Change


def view_images(views: Sequence[View], image: Float[Array, "*space i"], key: Key[Array, ""]) -> Float[Array, "v *space i"]:
    """An image under every view; the n-th draws from `fold_in(key, n)`. ValueError for views that change its shape."""
    seen = [view.apply(image, jax.random.fold_in(key, n)) for n, view in enumerate(views)]
    wrong = [view.name for view, one in zip(views, seen, strict=True) if one.shape != image.shape]
    if wrong:
        raise ValueError(f"views: expected views that keep the shape {image.shape} of the image, got {', '.join(wrong)}")
    return jnp.stack(seen)


def invert_view(views: Sequence[View], number: Int[Array, ""] | int, probs: Float[Array, "*space c"]) -> Float[Array, "*space c"]:
    """A prediction under the view of this number, which may be an array, on the grid of the image."""
    if isinstance(number, int):
        return views[number].invert(probs)
    return jax.lax.switch(number, [view.invert for view in views], probs)


def _smooth(x: Float[Array, "*space i"]) -> Float[Array, "*space i"]:
    """The binomial filter 1/4, 1/2, 1/4 along every axis, borders repeated."""
    for axis in range(x.ndim - 1):
        padded = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)], mode="edge")
        parts = [jax.lax.slice_in_dim(padded, start, start + x.shape[axis], axis=axis) for start in range(3)]
        x = parts[0] / 4 + parts[1] / 2 + parts[2] / 4
    return x
