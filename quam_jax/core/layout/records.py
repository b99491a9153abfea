"""The records of a search as arrays `[members s ...]` on the device, whichever way its members and steps run.

Every record is written where it belongs as soon as it is there, so that one copy of them is held and no more: of a large image
they are much of what a search takes.
"""

import threading
from typing import Any

import jax
import jax.numpy as jnp

from ..compilation import jit
from ..setup import Record
from ..viewing import blank_view

# axes in front of what a group hands over, and how they become `[members s ...]`
_BLOCKS = {
    "": lambda x: x[None, None],
    "m": lambda x: x[:, None],
    "s": lambda x: x[None],
    "sm": lambda x: jnp.swapaxes(x, 0, 1),
}


class Gathered:
    """Room for the records of so many members and steps; groups that run side by side write into it in turn.

    With `views` there is room beside each record for what its model says through them. So that numbers do not depend on who
    spares what, that of weights that break the bound is blank, unless `view_all` asks for it.
    """

    def __init__(self, members: int, steps: int, *, views: bool, view_all: bool = False) -> None:
        self.members, self.steps, self.views, self.view_all = members, steps, views, view_all
        self._whole: Record | None = None
        self._lock = threading.Lock()

    def put(self, row: int, s: int, records: Any, viewings: Any = None) -> None:
        """The records of step `s` of a group whose first member is `row`, and what each model says through views.

        A mapped group has one record with a leading axis, of which what exceeds the room is left out; any other has a tuple with
        one a member. `viewings` is None where they were spared.
        """
        if isinstance(records, Record):
            self._write(row, s, records, viewings, None, "m")
            return
        for i, record in enumerate(records):
            self._write(row + i, s, record, None if viewings is None else viewings[i], None, "")

    def put_all(self, row: int, records: Any, viewings: Any, last: Any) -> None:
        """All records of a group from one program of all steps: `[s members ...]`, or a tuple of `[s ...]`.

        Where there is a `last` one, of the weights after the last step, it takes the place of the first, of the given weights.
        """
        if isinstance(records, Record):
            self._write(row, 0, records, viewings, last, "sm")
            return
        for i, record in enumerate(records):
            end = None if last is None else last[i]
            self._write(row + i, 0, record, None if viewings is None else viewings[i], end, "s")

    def close(self) -> Record:
        """The records; nothing can be written after that."""
        assert self._whole is not None
        whole, self._whole = self._whole, None
        return whole

    def _write(self, row: int, s: int, record: Record, viewed: Any, last: Any, axes: str) -> None:
        with self._lock:
            if self._whole is None:
                self._whole = self._room(record, len(axes))
            places = (jnp.asarray(row), jnp.asarray(s))
            count = min(self.members - row, record.probs.shape[-3]) if "m" in axes else 1
            self._whole = _put(self._whole, record, viewed, last, *places, axes, count, self.view_all)

    def _room(self, record: Record, axes: int) -> Record:
        whole = jax.tree.map(lambda x: jnp.zeros((self.members, self.steps, *x.shape[axes:]), x.dtype), record)
        return whole._replace(viewed=blank_view(jnp.zeros_like(whole.probs))) if self.views else whole

    def programs(self, record: Any, viewed: Any, *, mapped: int) -> list[Any]:
        """The programs that write the records of one step, whose shapes are given for one member; `mapped` members in a group."""
        whole = jax.eval_shape(lambda: self._room(record, 0))
        place = jax.eval_shape(lambda: jnp.asarray(0))
        if mapped:
            group = jax.tree.map(lambda x: jax.ShapeDtypeStruct((mapped, *x.shape), x.dtype), (record, viewed))
            return [_put.lower(whole, *group, None, place, place, "m", min(self.members, mapped), self.view_all)]
        spared = [viewed, None] if self.views and not self.view_all else [viewed]
        return [_put.lower(whole, record, seen, None, place, place, "", 1, self.view_all) for seen in spared]


@jit(static_argnames=("axes", "count", "view_all"), donate_argnames="whole")
def _put(
    whole: Record, record: Record, viewed: Any, last: Any, row: jax.Array, s: jax.Array, axes: str, count: int, view_all: bool
) -> Record:
    """The records with one more, or some of a group, from `row` and step `s` on."""
    if last is not None:
        record = jax.tree.map(lambda some, end: jnp.concatenate([some[1:], end[None]]), record, last)
    if whole.viewed is not None:
        blank = blank_view(record.probs)
        if viewed is not None and not view_all:
            broken = ~(record.fit_loss <= record.bound)  # also where the loss is not a number
            viewed = jax.tree.map(lambda own, no: jnp.where(_along(broken, own), no, own), viewed, blank)
        record = record._replace(viewed=blank if viewed is None else viewed)

    def write(all_of_it: jax.Array, part: jax.Array) -> jax.Array:
        block = _BLOCKS[axes](part)[:count]
        return jax.lax.dynamic_update_slice(all_of_it, block, (row, s, *(0,) * (block.ndim - 2)))

    return jax.tree.map(write, whole, record)


def _along(values: jax.Array, other: jax.Array) -> jax.Array:
    """Values with axes of size 1 for those that the other array has behind them."""
    return values.reshape(*values.shape, *(1,) * (other.ndim - values.ndim))
