"""What a process does with freed memory and with compiled functions, for programs that start here; a library changes nothing.

These are the command line, and workers on other machines.
"""

import contextlib
import ctypes
import functools
import gc
import os
import sys
from pathlib import Path
from typing import Any

# parameters of mallopt in glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -3, -4, -8
_COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX tells it behind a compilation
SLOW = 0.05  # seconds of a compilation that leaves much behind
_KEEPS: list[bool] = []  # not empty while this process keeps what it frees
_RETURNS: list[bool] = []  # not empty from when on such a process gives it back


def own_cache() -> Path:
    """Where files are kept that only save time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quam_jax"


def cache_folder() -> Path:
    """Where compiled functions are kept between runs; JAX_COMPILATION_CACHE_DIR wins."""
    return Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or own_cache() / "compiled")


def kept_file(name: str) -> Path:
    """A file that is kept between runs beside them; JAX_COMPILATION_CACHE_DIR wins."""
    return Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or own_cache()) / name


def start_jax() -> None:
    """Import JAX with a persistent compilation cache, in a process that keeps its memory."""
    keep_freed_memory()
    import jax

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home only costs time
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def keep_freed_memory() -> bool:
    """Keep freed memory for the next allocation instead of giving it back to the system; whether that is possible here.

    Each compiled step allocates its temporary arrays anew. Returned and mapped again, 100 MB cost 30,000 page faults a
    step, a tenth to a fifth of the time of a search on a CPU. Works with glibc (Linux).
    """
    done = _set({_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**27})
    if done:
        _KEEPS.append(True)
    return done


def return_large_arrays() -> None:
    """Give freed arrays back to the system from now on, in a process that keeps them: for large images, or many channels.

    Arrays of hundreds of megabytes fragment a heap that never shrinks, so that it grows to a multiple of what a step takes; and
    page faults are little beside what is computed on a page of a large one.
    """
    if _KEEPS:
        _KEEPS.clear()
        _RETURNS.append(True)
        _set({_M_MMAP_MAX: 2**16, _M_MMAP_THRESHOLD: 2**22, _M_TRIM_THRESHOLD: 2**26, _M_TOP_PAD: 2**20})
        _trim_after_compilations()
    trim()


def forget_programs() -> None:
    """Let go of all that was compiled, in a process that gives memory back: what was looked at once is some hundred MB of it."""
    if _RETURNS:
        import jax

        jax.clear_caches()
        gc.collect()
        trim()


def trim() -> None:
    """Give freed pages back to the system, where glibc manages them and this process does not keep them."""
    if sys.platform.startswith("linux") and not _KEEPS:
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _trim_after_compilations() -> None:
    """A compilation leaves some 200 MB of freed pages behind, between others that are in use."""
    import jax

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED and duration_secs > SLOW:
            trim()

    jax.monitoring.register_event_duration_secs_listener(heard)


def _set(settings: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(name, value) == 1 for name, value in settings.items())
