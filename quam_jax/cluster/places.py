"""Whether a worker sees the same folders as the process that deals: paths start from the same place, and one holds a token."""

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from .lock import read_token

SEEN = 15.0  # seconds in which a shared folder shows what was written elsewhere


def go_to(where: Path, paths: Sequence[Path]) -> None:
    """Work in the folder that relative paths start from; ValueError where there is none, and some path needs it."""
    try:
        os.chdir(where)
    except OSError:
        relative = [path for path in paths if not path.is_absolute()]
        if relative:
            raise ValueError(f"{socket.gethostname()}: {where}: expected the folder from which {relative[0]} starts") from None


def find_folder(out: Path, token: str) -> None:
    """Look for a folder by the token in its lock; ValueError where it is not seen."""
    began = time.monotonic()
    while read_token(out) != token:
        if time.monotonic() - began > SEEN:
            found = "another folder" if out.is_dir() else "nothing"
            where = f"{socket.gethostname()}: {out}"
            raise ValueError(f"{where}: expected the folder where this command writes, got {found} by that name; share it")
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            os.listdir(out)  # has a network share look again
