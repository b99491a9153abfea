"""Blocks that are run again in the backward pass, so that only what goes into them is kept until then."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ..core.network import Mode, are_blocks_recomputed, recomputed_blocks

Method = Callable[..., Any]


def recomputable(method: Method) -> Method:
    """A method of a module, such as its `__call__`, that is run again in the backward pass inside `recomputed_blocks`.

    Its arguments are trees of arrays, a mode, words and numbers. Blocks inside it are not recomputed once more.
    """

    @functools.wraps(method)
    def call(self: Any, *values: Any) -> Any:
        if not are_blocks_recomputed():
            return method(self, *values)
        graph, stats, others = nnx.split(self, nnx.BatchStat, ...)  # type: ignore[misc]
        fixed = {place: value for place, value in enumerate(values) if isinstance(value, Mode | str | int)}
        arrays = {place: value for place, value in enumerate(values) if place not in fixed}

        def run(stats: Any, others: Any, arrays: dict[int, Any]) -> tuple[Any, Any]:
            block, given = nnx.merge(graph, stats, others), {**fixed, **arrays}
            with recomputed_blocks(False):
                y = method(block, *(given[place] for place in range(len(given))))
            return y, nnx.state(block, nnx.BatchStat)

        y, after = jax.checkpoint(run)(stats, others, arrays)
        nnx.update(self, after)  # what train mode changed
        return y

    return call
