"""Any method through test-time views: what it says of every view, brought back to the grid of the image."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ..core.views import Symmetry, View, named_views, view_images


def views_for(image: Float[Array, "*space i"], names: str) -> tuple[View, ...]:
    """The views that are named (see `named_views`) and that an image of such sides takes; ValueError if there is none."""
    views = named_views(names, Symmetry.of(image.shape[:-1]))
    if not views:
        raise ValueError(f"views: expected some for an image of sides {image.shape[:-1]}, got {names!r}")
    return views


def through_views(
    predict: Callable[[Float[Array, "v *space i"]], Float[Array, "v *space c"] | Float[Array, "v n *space c"]],
    image: Float[Array, "*space i"],
    *,
    views: Sequence[View],
    key: Key[Array, ""],
) -> Float[Array, "v *space c"] | Float[Array, "v n *space c"]:
    """What is predicted of every view, once or n times, on the grid of the image; the n-th view draws from `fold_in(key, n)`."""
    said = predict(view_images(views, image, key))
    single = said.ndim == image.ndim + 1
    return jnp.stack([view.invert(one) if single else jax.vmap(view.invert)(one) for view, one in zip(views, said, strict=True)])
