"""Mutants of files and what becomes of them: changed values, bombs, and the tally of a reader that is given them."""

import collections
import contextlib
import copy
import gzip
import random
import re
import shutil
import signal
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20
MOST_SECONDS = 10.0
NUMBERS = (0, -1, 1, 3, 2**31, 2**63, 10**30, 1e308, 0.5)
THINGS: tuple[Any, ...] = (*NUMBERS, None, True, "", "x" * 900, [], {}, [[]], [0] * 50, {"0": {}}, "../../etc/passwd", "\u202e\0")


class Tally:
    """What became of the mutants of one format, and the most that one of them cost; mutants that a reader fails at are kept."""

    keep: Path | None = None  # the folder for them

    def __init__(self, name: str) -> None:
        self.name, self.count = name, collections.Counter[str]()
        self.bytes, self.seconds = 0, 0.0
        self.wrong: list[str] = []

    def read(self, reader: Callable[[], Any], *paths: Path) -> None:
        """Call a reader on a mutant, which lies in `paths`."""
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        began = time.process_time()
        wrong = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pillow warns of odd metadata and goes on
                with _at_most(3 * MOST_SECONDS):
                    reader()
            self.count["read"] += 1
        except ValueError as error:
            said = str(error)
            if "\n" in said or not said or len(said) > 5000:
                wrong = f"a message of {said.count(chr(10)) + 1} lines and {len(said):,} letters: {said[:200]!r}"
            self.count["refused"] += 1
        except (Exception, _Endless) as error:
            self.count["failed"] += 1
            wrong = f"{type(error).__name__}: {str(error)[:200]}"
        seconds, held = time.process_time() - began, tracemalloc.get_traced_memory()[1] - before
        self.seconds, self.bytes = max(self.seconds, seconds), max(self.bytes, held)
        if not wrong and (seconds > MOST_SECONDS or held > MOST_BYTES):
            wrong = f"{held:,} bytes, {seconds:.1f} s"
        if wrong:
            self.wrong.append(wrong)
            if self.keep is not None:
                self.keep.mkdir(parents=True, exist_ok=True)
                stem = re.sub("[^a-z0-9]+", "_", self.name.lower())
                for path in paths:
                    shutil.copy(path, self.keep / f"{stem}_{len(self.wrong)}{path.suffix}")

    def row(self) -> dict[str, Any]:
        """Figures for the result."""
        return {
            "format": self.name,
            "files": sum(self.count.values()),
            "read": self.count["read"],
            "refused": self.count["refused"],
            "wrong": len(self.wrong),
            "most_megabytes": self.bytes / 1e6,
            "most_seconds": self.seconds,
            **({"first_wrong": self.wrong[0]} if self.wrong else {}),
        }


class _Endless(BaseException):
    """A reader was interrupted; no reader's own handling of errors may catch it."""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer, in processor seconds; where the system has no such timer, nothing does."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(*_: Any) -> None:
        raise _Endless(f"did not end within {seconds:g} processor seconds")

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def changed_values(tree: Any, rng: random.Random) -> Any:
    """A nested value with one to three of its leaves or branches replaced, removed or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        waiting = [tree]
        while waiting:
            value = waiting.pop()
            keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
            places += [(value, key) for key in keys]
            waiting += [value[key] for key in keys]
        if not places:
            break
        value, key = rng.choice(places)
        if rng.random() < 0.15:
            del value[key]
        elif rng.random() < 0.1 and isinstance(value, dict):
            value[rng.choice(("", "x", "0", "labels"))] = value.pop(key)
        else:
            value[key] = copy.deepcopy(rng.choice(THINGS))
    return tree


def nifti_bomb(*, announced: int = 4000) -> bytes:
    """A few hundred kilobytes of gzip: a header of `announced`^3 voxels in front of 200 MB of zeros."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype("uint8")
    header.set_data_shape((announced,) * 3)
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["sform_code"] = 0
    header["pixdim"][:4] = 1
    return gzip.compress(header.binaryblock + bytes(4) + bytes(200_000_000), mtime=0)


def map_bomb() -> bytes:
    """An archive whose array announces four terabytes."""
    import struct

    from tests.checkpoints import packed

    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    return packed(**{"data.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16)})


def png_bomb(*, side: int = 100_000) -> bytes:
    """A PNG of `side`^2 one-bit pixels, all zero."""
    import struct

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(1000)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )
