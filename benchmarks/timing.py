"""How a benchmark takes time: medians after a warm-up, the rate of a large matrix product as the floor, peak memory."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

MATMUL = 3000  # side of the square matrices of the floor


def threads() -> int:
    """Cores that this process may use; both sides get as many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of a call that waits for its result, after one call that does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def alternate(sides: dict[str, Callable[[], object]], *, rounds: int = 5) -> dict[str, float]:
    """Median seconds of several calls taken in turn, so that a drifting machine hits all of them; each is warmed up once."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    for _ in range(rounds):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def matmul_rate(side: int = MATMUL) -> float:
    """Floating-point operations a second of a large float32 matrix product on this device, now."""
    import jax
    import jax.numpy as jnp

    with jax.default_matmul_precision("highest"):
        product = jax.jit(lambda a: a @ a)
        matrix = jnp.ones((side, side), jnp.float32)
        return 2 * side**3 / seconds(lambda: jax.block_until_ready(product(matrix)))


def temporary_bytes(module: Any, name: str, call: Callable[[], object], **static: Any) -> int:
    """Temporary memory of the largest program that a jitted function of a module became during a call, as XLA compiled it.

    `static` are the arguments of `jax.jit` that say what is static.
    """
    import jax

    from quam_jax.core.compilation import compiler_options

    function, shapes = getattr(module, name), {}

    def watched(*arguments: Any) -> Any:
        abstract = jax.tree.map(lambda x: (x.shape, x.dtype) if hasattr(x, "shape") else x, arguments)
        if str(abstract) not in shapes:  # before the call, which may take over what it was given
            lowered = jax.jit(function.__wrapped__, compiler_options=compiler_options(), **static).lower(*arguments)
            shapes[str(abstract)] = int(lowered.compile().memory_analysis().temp_size_in_bytes)
        return function(*arguments)

    setattr(module, name, watched)
    try:
        call()
    finally:
        setattr(module, name, function)
    return max(shapes.values())
