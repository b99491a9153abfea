"""What a wanted mask may depend on, beside the mask that is moved."""

from typing import NamedTuple

from jaxtyping import Array, ArrayLike, Float, Key

from .morphology import Element, Outside


class Wish(NamedTuple):
    """Settings of wanted masks, the given network's probabilities, and a key; each kind takes what it needs.

    `radius` counts pixels, in a volume millimetres.
    """

    radius: float
    classes: int
    element: Element = "square"
    outside: Outside = "edge"
    probs: Float[ArrayLike, "*space c"] | None = None
    key: Key[Array, ""] | None = None
