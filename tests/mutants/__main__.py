"""`python -m tests.mutants [PATTERN ...]`: every mutant, or those whose file or change matches; exit code 1 if one survives.

Each worker has a copy of the tree, changes one token in it, runs the tests named beside the mutant until the first failure,
and puts the file back. A mutant that no test fails at has survived. Takes about half an hour on two cores.
"""

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .listed import MUTANTS
from .mutant import ROOT, Mutant

COPIED = ("quam_jax", "converters", "benchmarks", "tests", "docs", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
LIMIT = 900  # seconds; a change that makes a test hang is noticed too


def main() -> int:
    """Run the mutants asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("patterns", nargs="*", help="regular expressions of files or changes; default: all")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.patterns or any(re.search(p, "\n".join(m[:3])) for p in options.patterns)]
    trees: queue.Queue[Path] = queue.Queue()
    survivors, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as pool:
        for number in range(options.workers):
            trees.put(copy_tree(Path(folder) / str(number)))

        def attempt(mutant: Mutant) -> tuple[Mutant, str, float]:
            tree, start = trees.get(), time.monotonic()
            try:
                return mutant, noticed(mutant, tree), time.monotonic() - start
            finally:
                trees.put(tree)

        for mutant, by, seconds in pool.map(attempt, chosen):
            survivors += not by
            line = f"{'noticed ' if by else 'SURVIVED'} {seconds:4.0f} s  {mutant.file}: {mutant.before!r} -> {mutant.after!r}"
            sys.stdout.write(f"{line}{f'  [{by}]' if by else ''}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen)} mutants, {survivors} survived, {time.monotonic() - began:.0f} s\n")
    return int(survivors > 0)


def copy_tree(place: Path) -> Path:
    """A copy of what the tests need, without caches; given data is found where it lies."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            place.mkdir(exist_ok=True)
            shutil.copy(source, place / name)
    return place


def noticed(mutant: Mutant, tree: Path) -> str:
    """The first test that fails with the change, or "" where none does."""
    path = tree / mutant.file
    original = path.read_text()
    path.write_text(mutant.changed(original))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *mutant.tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, f"--shared={ROOT.parent / 'shared'}"],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "no end"
    finally:
        path.write_text(original)
    if done.returncode == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or not found:
        raise RuntimeError(f"{mutant.file}: {mutant.before!r}: pytest ended with {done.returncode}: {done.stdout[-2000:]}")
    return found[1]


if __name__ == "__main__":
    sys.exit(main())
