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
    return Trajectory(*(np.asarray(leaf) for leaf in trajectory))


def assert_equal(found: Trajectory, expected: Trajectory, *, rtol: float = 1e-5) -> None:
    for name in Trajectory._fields:
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6, err_msg=name)
