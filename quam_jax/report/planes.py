"""How a volume is cut into slices: which ones, along which axes, and which way up they are drawn."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num


@dataclass(frozen=True)
class Plane:
    """One way to slice a case: which slices are shown, which axes lie down and across, and which way round.

    `axis` is None for a picture, which is its own only slice. `letters` are the directions of the four edges
    (top, right, bottom, left) in patient terms, where the orientation is known. `block` x `block` pixels of
    the data become one pixel of the page.
    """

    axis: int | None
    slices: tuple[int, ...]
    down: int
    across: int
    flip_down: bool = False
    flip_across: bool = False
    block: int = 1
    letters: tuple[str, str, str, str] | None = None

    def tiles(self, values: Num[np.ndarray, "..."]) -> Num[np.ndarray, "n h w ..."]:
        """The slices of an array [*space, ...] as seen on this plane, at full resolution."""
        order = [self.down, self.across] if self.axis is None else [self.axis, self.down, self.across]
        rest = range(len(order), values.ndim)
        tiles = np.transpose(values, [*order, *rest])
        tiles = tiles[None] if self.axis is None else tiles[list(self.slices)]
        return tiles[:, :: -1 if self.flip_down else 1, :: -1 if self.flip_across else 1]


def choose_slices(mass: Float[np.ndarray, " z"], limit: int) -> tuple[int, ...]:
    """All slices, or `limit` evenly spaced ones of which the nearest moves onto the one of largest mass."""
    count = len(mass)
    if count <= limit:
        return tuple(range(count))
    chosen = np.unique(np.linspace(0, count - 1, limit).round().astype(int))
    peak = int(np.argmax(np.nan_to_num(mass)))
    chosen[int(np.argmin(np.abs(chosen - peak)))] = peak
    return tuple(sorted({int(i) for i in chosen}))


def orthogonal_planes(mass: Float[np.ndarray, "x y z"], *, orientation: str | None, limit: int, slices: int) -> list[Plane]:
    """The planes across the last, middle and first axis of a volume.

    With an orientation such as "RAS" (the patient direction in which each index grows) planes are drawn as in
    radiology: anterior or superior up, the patient's right on the viewer's left, letters at the edges. Else
    the earlier axis goes down and the later one across.
    """
    planes = []
    for axis in (2, 1, 0):
        rest = [a for a in range(3) if a != axis]
        chosen = choose_slices(mass.sum(axis=tuple(rest)), slices)
        block = -(-max(mass.shape[a] for a in rest) // limit)
        codes = _codes(orientation)
        if codes is None:
            planes.append(Plane(axis, chosen, rest[0], rest[1], block=block))
            continue
        down = next((a for a in rest if codes[a] in "SI"), None)
        down = next(a for a in rest if codes[a] in "AP") if down is None else down
        across = rest[1] if down == rest[0] else rest[0]
        flip_down, flip_across = codes[down] in "SA", codes[across] in "RA"
        bottom = _OPPOSITE[codes[down]] if flip_down else codes[down]
        right = _OPPOSITE[codes[across]] if flip_across else codes[across]
        letters = (_OPPOSITE[bottom], right, bottom, _OPPOSITE[right])
        planes.append(Plane(axis, chosen, down, across, flip_down, flip_across, block, letters))
    return planes


_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


def _codes(orientation: str | None) -> str | None:
    """The three letters if they name one axis of the body each."""
    if orientation is None or len(orientation) != 3:
        return None
    kinds = {frozenset((c, _OPPOSITE[c])) for c in orientation if c in _OPPOSITE}
    return orientation if len(kinds) == 3 else None
