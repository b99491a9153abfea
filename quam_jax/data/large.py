"""Arrays that may be larger than memory should hold: zeros in temporary files, and blocks of rows to work through."""

import errno
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

IN_MEMORY = 2**28  # bytes; a larger array lies in a temporary file
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BLOCK = 2**22  # numbers of a block of rows


def zeros(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
    """An array of zeros, in a temporary file where it is large; OSError, with what to do, where the disk has no room for it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as handle:
        try:
            _reserve(handle.fileno(), size)
        except OSError as error:
            if error.errno not in FULL:
                raise
            place = tempfile.gettempdir()
            raise OSError(error.errno, f"{place}: no room for {size:,} bytes of maps; set TMPDIR to a larger disk") from error
        return np.memmap(handle, dtype, "r+", shape=tuple(shape))


def _reserve(handle: int, size: int) -> None:
    """Give a file its size and, where the system can, its place on the disk: a full disk would else kill the process later."""
    os.truncate(handle, size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno in FULL:
                raise


def release(array: np.ndarray) -> None:
    """Let go of the memory that a large array of `zeros` holds for the moment: its file keeps the numbers for the next look."""
    while getattr(array, "_mmap", None) is None and isinstance(array.base, np.ndarray):
        array = array.base
    held = getattr(array, "_mmap", None)
    if held is not None and sys.platform.startswith("linux"):
        held.madvise(mmap.MADV_DONTNEED)


def by_blocks(function: Callable[[np.ndarray], np.ndarray], array: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """`function` of some rows of an array at a time, for functions of every row by itself; what it gives has as many rows."""
    result: np.ndarray | None = None
    for rows in row_blocks(array.shape):
        part = function(array[rows])
        if result is None:
            result = zeros((len(array), *part.shape[1:]), dtype)
        result[rows] = part
        release(array)
        release(result)
    assert result is not None
    return result


def row_blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Slices of the first axis, in order, of about BLOCK numbers each; the last axes of `shape` belong to a row."""
    rows = max(1, BLOCK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def label_type(classes: int) -> type:
    """The smallest signed type that holds so many labels."""
    return np.int8 if classes <= 2**7 else np.int16
