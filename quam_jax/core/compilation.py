"""How functions are compiled: `jax.jit` with the options that suit the backend, decided when a function first runs.

On a CPU two defaults of XLA cost time, and one memory. It schedules for concurrency, which keeps more intermediate arrays alive
than two or four cores can use; with the schedule that saves memory a search step of the attention U-Net takes 126 instead of 206
MB. And it hands
convolutions to a library (YNNPACK) that is up to two times slower on feature maps than XLA's own; matrix products and
reductions stay with it. `benchmarks/convolution.py` and `benchmarks/forward.py` measure what comes of it.

XLA takes out optimisation barriers before it fuses, and finds then that what a backward pass computes again was known before: it
merges the two, and `jax.checkpoint` saves nothing. With that pass switched off the barriers stay until the schedule is made.

What a compiled way to run takes may be kept between processes, like the compiled programs (`keep_choices`).

Independent calls run two at a time (`side_by_side`): on a few cores one of them leaves gaps that another one fills.
"""

import collections
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import jax

from .progress import carried

_CPU_OPTIONS = {
    "xla_disable_hlo_passes": "cse_barrier_expander",
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}


@functools.cache
def compiler_options() -> dict[str, Any]:
    """Options for the default backend; those that this version of XLA does not know are left out."""
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in _CPU_OPTIONS.items() if _known(name, value)}


def _known(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda x: x, compiler_options={name: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def jit(function: Callable[..., Any] | None = None, **arguments: Any) -> Any:
    """`jax.jit` with `compiler_options`; importing a module that uses it starts no backend.

    While another function is traced the options are left to that one, as JAX demands. What `lower` gives, once compiled, is not
    compiled again when the function is called.
    """
    if function is None:
        return functools.partial(jit, **arguments)
    inner = jax.jit(function, **arguments)

    @functools.cache
    def outermost() -> Any:
        return jax.jit(function, compiler_options=compiler_options(), **arguments)

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((values, named)))
        return (inner if traced else outermost())(*values, **named)

    def lower(*values: Any, **named: Any) -> Any:
        return outermost().lower(*values, **named)

    def clear_cache() -> None:
        if outermost.cache_info().currsize:
            outermost().clear_cache()

    call.__dict__.update(lower=lower, clear_cache=clear_cache)  # as jax.jit has them
    return call


AT_ONCE = 2


def side_by_side(function: Callable[[Any], Any], items: Iterable[Any], *, compiled: bool = False) -> Iterator[Any]:
    """The results of a function that runs compiled code, in the order of the items, AT_ONCE items at a time.

    The first one goes alone, lest several threads compile the same, unless it is `compiled`. Items are drawn as there is room.
    """
    remaining = iter(items)
    if not compiled:
        for item in remaining:
            yield function(item)
            break
    names = ("jax_default_matmul_precision", "jax_default_device", "jax_enable_x64")
    precision, device, double = (getattr(jax.config, name) for name in names)  # a new thread does not have those of this one

    def in_thread(item: Any) -> Any:
        with jax.default_matmul_precision(precision), jax.default_device(device), jax.enable_x64(double):
            return function(item)

    running: collections.deque[Future[Any]] = collections.deque()
    with ThreadPoolExecutor(min(AT_ONCE, multiprocessing.cpu_count())) as pool:
        for item in remaining:
            running.append(pool.submit(carried(in_thread), item))
            if len(running) >= AT_ONCE:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


@runtime_checkable
class Kept(Protocol):
    """Where it is kept between processes which way to run was the fastest; neither method raises."""

    def find(self, key: str) -> dict[str, Any] | None:
        """What was kept under a key: `name` and `seconds`."""

    def keep(self, key: str, name: str, seconds: dict[str, float]) -> None:
        """Keep a choice."""


_KEPT: list[Kept] = []


def keep_choices(where: Kept | None) -> None:
    """From now on choices of this process are kept there, and those of others found there (None: nowhere)."""
    _KEPT[:] = [] if where is None else [where]


def kept_choices() -> Kept | None:
    """Where choices are kept."""
    return _KEPT[0] if _KEPT else None
