"""Settings of the whole process, for programs that start here (the command line, benchmarks); a library changes nothing."""

import ctypes
import sys

# parameters of mallopt in glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Keep freed memory for the next allocation instead of giving it back to the system; whether that is possible here.

    Each compiled step allocates its temporary arrays anew. Returned and mapped again, 100 MB cost 30,000 page faults a
    step, a tenth to a fifth of the time of a search on a CPU. Works with glibc (Linux).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**27}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
