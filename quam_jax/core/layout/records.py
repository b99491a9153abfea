"""The records of a group as arrays `[members s ...]`, whichever way its members and steps ran."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..setup import Record
from ..viewing import blank_view
from .programs import stack


def apart(found: tuple[Any, Any], steps: int) -> tuple[list[Any], list[Any]]:
    """Records and viewings of a program of all steps, step by step; no viewings where there are none."""
    each = _apart(found, steps)
    return [records for records, _ in each], [] if found[1] is None else [viewed for _, viewed in each]


@functools.partial(jax.jit, static_argnames="steps")
def _apart(found: Any, steps: int) -> list[Any]:
    return [jax.tree.map(lambda x, s=s: x[s], found) for s in range(steps)]


def join_records(records: Sequence[Any], viewings: Sequence[Any], *, members: int, mapped: bool, view_all: bool) -> Record:
    """The records of the steps of a group, and beside each what its model says through views, where there are any.

    A mapped group has one record with a leading axis a step, any other a tuple with one a member. A viewing that was spared is
    None; so that numbers do not depend on who spares what, those of records that break the bound are blank (see `view_all`).
    """
    viewed = None
    if mapped:
        joined = _stack_steps(tuple(records))
        viewed = _stack_steps(tuple(viewings)) if viewings else None
    else:
        joined = stack([stack([record[i] for record in records]) for i in range(members)])
        if viewings:
            pairs = list(zip(records, viewings, strict=True))
            viewed = stack([stack([_or_blank(*pair, i) for pair in pairs]) for i in range(members)])
    return joined if viewed is None else joined._replace(viewed=viewed if view_all else _spare_broken(joined, viewed))


def _or_blank(record: Any, viewing: Any, member: int) -> Any:
    return blank_view(record[member].probs) if viewing is None else viewing[member]


@jax.jit
def _stack_steps(steps: tuple[Any, ...]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *steps)


@jax.jit
def _spare_broken(records: Record, viewed: Any) -> Any:
    kept = records.fit_loss <= records.bound
    return jax.tree.map(
        lambda own, blank: jnp.where(kept.reshape(*kept.shape, *(1,) * (own.ndim - 2)), own, blank),
        viewed,
        blank_view(records.probs),
    )
