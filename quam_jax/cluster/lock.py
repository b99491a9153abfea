"""One process at a time in a run folder, or one a part: a lock that the system lets go of when its holder ends, however it ends.

The lock file of the whole holds a token of its holder, by which workers elsewhere tell that the folder is the one that was meant,
and later that nobody has begun anew. File systems that know no locks (some network shares) are taken as they are: two processes
at once then write the same files twice, which harms nothing but the time.
"""

import contextlib
import os
import secrets
import types
from collections.abc import Iterator
from pathlib import Path

fcntl: types.ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
PARTS = ".parts"


@contextlib.contextmanager
def hold(out: Path, *, part: str = "") -> Iterator[str]:
    """Be the only process in an existing run folder, or the only one at a part of it; yields the token.

    ValueError where another is at work. The lock file goes with the lock, unless parts may share it.
    """
    token = secrets.token_hex(8)
    with _locked(out / LOCK, shared=bool(part)) as file:
        if file is None:
            what = "another process is at work in it" if not part else "a process without --part is at work in it"
            raise ValueError(f"{out}: {what}; to share the cases of a run: --part K/N, or --engine ray")
        if not part:
            os.truncate(file, 0)
            os.write(file, token.encode())
            try:
                yield token
            finally:
                (out / LOCK).unlink(missing_ok=True)
            return
        (out / PARTS).mkdir(exist_ok=True)
        with _locked(out / PARTS / f"{part}.lock", shared=False) as own:
            if own is None:
                raise ValueError(f"{out}: another process is at work on part {part.replace('-of-', '/')} of it")
            yield token


def read_token(out: Path) -> str:
    """The token of whoever holds the whole folder; "" where nobody does."""
    try:
        return (out / LOCK).read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def _locked(path: Path, *, shared: bool) -> Iterator[int | None]:
    """The open file with the lock on it; None where another process has it."""
    file = _take(path, shared=shared)
    try:
        yield file
    finally:
        if file is not None:
            os.close(file)


def _take(path: Path, *, shared: bool) -> int | None:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except OSError:
            return file  # a file system without locks
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # its last holder has removed it meanwhile
