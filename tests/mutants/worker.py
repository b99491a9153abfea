"""A worker: a tree of its own, in which one token at a time is changed, and a process for the tests of each change."""

import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .mutant import ROOT, Mutant

COPIED = ("quam_jax", "converters", "benchmarks", "tests", "docs", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
LIBRARIES = (
    "pytest",
    "jax",
    "optax",
    "flax.nnx",
    "scipy.stats",
    "scipy.ndimage",
    "skimage.segmentation",
    "nibabel",
    "hypothesis",
)
LIMIT = 900  # seconds; a change that makes a test hang is noticed too


def _copy_tree(place: Path) -> Path:
    """A copy of what the tests need, without caches; given data is found where it lies."""
    place.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, place / name, ignore=shutil.ignore_patterns("__pycache__", *["results"] * (name == "benchmarks"))
            )
        else:
            shutil.copy(source, place / name)
    return place


def ready(folder: str) -> None:
    """A worker before its first mutant: in a tree of its own, with the libraries, and without the package and its tests."""
    sys.dont_write_bytecode = True
    for name in LIBRARIES:
        importlib.import_module(name)
    os.chdir(_copy_tree(Path(folder) / str(os.getpid())))
    os.environ |= {"PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}


def attempt(mutant: Mutant) -> tuple[str, float]:
    """The first test that fails with the change, or "" where none does, and the seconds that it took."""
    path, start = Path(mutant.file), time.monotonic()
    original = path.read_text()
    path.write_text(mutant.changed(original))
    try:
        return failing(mutant.tests), time.monotonic() - start
    finally:
        path.write_text(original)


def failing(tests: Sequence[str]) -> str:
    """The first of the tests that fails, in a process of its own; "" where none does. RuntimeError where they cannot be run."""
    if not tests:
        return ""
    with tempfile.TemporaryFile("w+", errors="replace") as told:
        process = os.fork()
        if process == 0:
            _run(tests, told.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        told.seek(0)
        output = told.read()
    if code == -signal.SIGALRM:
        return "no end"
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    if code not in (0, 1) or (code == 1 and not found):
        raise RuntimeError(f"{tests}: pytest ended with {code}: {output[-2000:]}")
    return found[1] if found and code else ""


def _run(tests: Sequence[str], output: int) -> None:
    """Run tests from the current tree and end this process with pytest's exit code."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.alarm(LIMIT)
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "quam_jax", "__mp_main__")]:
        del sys.modules[name]
    sys.path[:0] = [os.getcwd()]
    code = 3
    try:
        code = int(
            sys.modules["pytest"].main(
                ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests, f"--shared={ROOT.parent / 'shared'}"]
            )
        )
    finally:
        sys.stdout.flush()
        os._exit(code)
