"""How much memory this process may take: what was asked for, or a share of what is free; and what it has taken.

On a CPU a budget is for the whole process, its peak as the operating system sees it; on other devices for what the device holds.
What is free is the least of what the system, a container's limit and a limit of the process leave.
"""

import functools
import os
import resource
import sys

import jax

from .core.layout.choose import Budget
from .core.layout.fitting import in_words
from .process import trim

SHARE = 0.5  # of the free memory that is taken where nothing is asked for


@functools.cache
def budget(asked: int = 0) -> Budget:
    """The budget of `asked` bytes, or the default one.

    Made once a process, before models and data are there, so that it does not shrink from case to case.
    """
    held, total = _now(asked)
    return Budget(total, held, bool(asked), functools.partial(_now, asked))


def _now(asked: int) -> tuple[int, int]:
    """Bytes that are held now and that may be held in all; the share is one of what is free now, for processes that live long."""
    held = held_memory()
    return held, asked or held + int(SHARE * free_memory())


def require_room(weights: int, asked: int) -> None:
    """ValueError for a budget that has no room for `weights` bytes of weights and a gradient of them beside this process."""
    total, base = budget(asked)[:2]
    if total < base + 3 * weights:
        raise ValueError(
            f"memory: the process and a model of {in_words(weights)} take {in_words(base + 3 * weights)} before any image; "
            f"expected a budget above that, got {in_words(total)}; raise --memory"
        )


def held_memory() -> int:
    """Bytes that the device, or this process where the device is the processor, holds now."""
    statistics = _device_statistics()
    if statistics is not None:
        return int(statistics.get("bytes_in_use", 0))
    trim()
    pages = _words("/proc/self/statm")
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else peak_memory()


def peak_memory() -> int:
    """The most bytes that the device, or this process where the device is the processor, has held."""
    statistics = _device_statistics()
    if statistics is not None:
        return int(statistics.get("peak_bytes_in_use", 0))
    status = _status()
    if "VmHWM" in status:  # what getrusage says counts the process that started this one too
        return int(status["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_memory() -> int:
    """Bytes that could still be taken."""
    statistics = _device_statistics()
    if statistics is not None:
        return int(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    return max(0, min([_free_in_system(), *_free_in_container(), *_free_in_process()]))


def _device_statistics() -> dict[str, int] | None:
    device = jax.local_devices()[0]
    statistics = None if device.platform == "cpu" else device.memory_stats()
    return statistics if statistics and "bytes_limit" in statistics else None


def _free_in_system() -> int:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_in_container() -> list[int]:
    """What the control groups above this process leave, in either version; nothing where there is no limit."""
    free = []
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = "/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup"
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        parts = [part for part in path.strip().split("/") if part]
        for count in range(len(parts) + 1):  # a container sees its own group as the root
            folder = "/".join([root, *parts[:count]])
            limit, usage = (_words(f"{folder}/{name}") for name in names)
            if limit and usage and limit[0].isdigit() and usage[0].isdigit():
                free.append(int(limit[0]) - int(usage[0]) + _cached(folder))
    return free


def _cached(folder: str) -> int:
    """Bytes of files that a control group is charged for and gives up when memory is short."""
    found = dict(line.split()[:2] for line in _lines(f"{folder}/memory.stat") if len(line.split()) == 2)
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _free_in_process() -> list[int]:
    """What the limits of this process on its address space and its data leave."""
    status, free = _status(), []
    for kind, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY and used in status:
            free.append(limit - int(status[used].split()[0]) * 1024)
    return free


def _status() -> dict[str, str]:
    return dict(line.split(":", 1) for line in _lines("/proc/self/status") if ":" in line)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _words(path: str) -> list[str]:
    return " ".join(_lines(path)).split()
