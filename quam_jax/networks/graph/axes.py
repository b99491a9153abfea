"""Settings of operations that are one number, or one for every spatial axis."""

from collections.abc import Sequence

Sizes = int | Sequence[int]


def each(value: Sizes | None, count: int, default: int = 1) -> tuple[int, ...]:
    """One number for every spatial axis."""
    if value is None or (not isinstance(value, int) and len(value) == 0):
        return (default,) * count
    if isinstance(value, int):
        return (value,) * count
    return tuple(value) * (count if len(value) == 1 else 1)
