"""Searches of three members on the tiny network, each by a plan and run once."""

import functools

import jax
import numpy as np

from quam_jax.config import ExecutionConfig, SearchConfig
from quam_jax.core.types import Trajectory
from tests.tiny import search, tiny_fit, tiny_image, tiny_model, tiny_targets

EVAL = SearchConfig(members=3, steps=2, learning_rate=0.05, slack=0.05)


@functools.lru_cache
def run(config: SearchConfig, members: str = "loop", steps: str = "loop", chunk: int = 2, *, key: int = 0) -> Trajectory:
    """A search of three members by one plan."""
    model = tiny_model(drop=0.3)
    plan = ExecutionConfig(members, steps, chunk)  # type: ignore[arg-type]
    trajectory = search(
        model, tiny_image(), tiny_fit(model), targets=tiny_targets(), config=config, key=jax.random.key(key), execution=plan
    )
    return jax.tree.map(np.asarray, trajectory)


def assert_equal(found: Trajectory, expected: Trajectory, *, rtol: float = 1e-5) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (name, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6, err_msg=jax.tree_util.keystr(name))
