"""Which of several processes this one is: told by options, or by jax.distributed on Slurm, TPU pods and MPI.

The cases of a run are shared through the run folder alone. jax.distributed is asked for where the devices need it (a TPU pod
slice starts only as a whole) or for the number and index of the processes, nothing else; a process that dies does not take
the others with it where this version of JAX knows how to go on.
"""

import contextlib
import time

import jax
from orbax.checkpoint import multihost

from .request import Sharing

AUTO = "auto"
GRACE = 2.0  # seconds that process 0, which holds the connections of all, outlives the others


def find_sharing(*, hosts: int | None, index: int | None, coordinator: str | None, patience: float) -> Sharing:
    """Start jax.distributed if a coordinator (HOST:PORT, or `auto`) is given, and say which process this is.

    Has to be called before JAX is used. ValueError for a number without an index, a coordinator that cannot be reached, or
    `auto` where no cluster is found.
    """
    if (hosts is None) != (index is None) and not (coordinator == AUTO or hosts == 1):
        raise ValueError(f"--hosts and --host-index: expected both or neither, got {hosts} and {index}")
    if coordinator is None:
        return Sharing(hosts or 1, index or 0, patience)
    if coordinator != AUTO and (hosts is None or index is None or ":" not in coordinator):
        raise ValueError(f"--coordinator: expected auto, or HOST:PORT with --hosts and --host-index, got {coordinator!r}")
    with contextlib.suppress(AttributeError):  # a version of JAX without it ends all processes when one dies
        jax.config.update("jax_enable_recoverability", True)
        jax.config.update("jax_cpu_collectives_implementation", None)  # nothing is exchanged between processes
    try:
        if coordinator == AUTO:
            jax.distributed.initialize(num_processes=hosts, process_id=index)
        else:
            jax.distributed.initialize(coordinator, num_processes=hosts, process_id=index)
    except (ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"--coordinator {coordinator}: jax.distributed did not start ({reason})") from error
    return Sharing(jax.process_count(), jax.process_index(), patience)


def leave(*, patience: float) -> None:
    """Let the processes that `find_sharing` joined end together, waiting at most `patience` seconds for each other.

    A process that ends while others are still connected to it would take them with it.
    """
    if not jax.distributed.is_initialized():
        return
    everybody = set(range(jax.process_count()))
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # somebody has died, or is late
        multihost.get_barrier_sync_fn(processes=everybody)(key="quam_jax run ended", timeout_ms=int(1000 * patience))
    if jax.process_index() == 0:
        time.sleep(GRACE)
    jax.distributed.shutdown()
