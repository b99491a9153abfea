"""`python -m tests.mutants [PATTERN ...]`: every mutant, or those whose file or change matches; exit code 1 if one survives.

Each worker has a copy of the tree and the libraries in memory. For a mutant it changes one token, forks, runs the tests named
beside the mutant until the first failure, and puts the file back. A mutant that no test fails at has survived. The tests run
once without any change first: what fails anyway notices nothing. Takes about ten minutes on two cores.
"""

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

from .listed import MUTANTS
from .worker import attempt, failing, ready


def main() -> int:
    """Run the mutants asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("patterns", nargs="*", help="regular expressions of files or changes; default: all")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.patterns or any(re.search(p, "\n".join(m[:3])) for p in options.patterns)]
    named = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
    survivors, began = 0, time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn"), ready, (folder,)) as pool,
    ):
        for by in pool.map(failing, [named[n :: options.workers] for n in range(options.workers)]):
            if by:
                sys.stdout.write(f"{by} fails without any change\n")
                return 2
        for mutant, (by, seconds) in zip(chosen, pool.map(attempt, chosen), strict=True):
            survivors += not by
            line = f"{'noticed ' if by else 'SURVIVED'} {seconds:4.0f} s  {mutant.file}: {mutant.before!r} -> {mutant.after!r}"
            sys.stdout.write(f"{line}{f'  [{by}]' if by else ''}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen)} mutants, {survivors} survived, {time.monotonic() - began:.0f} s\n")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
