"""How soon the command line answers: help without JAX, in processor seconds, which other programs do not change."""

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def processor_seconds(code: str, *arguments: str) -> tuple[float, str]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def test_help_takes_less_than_half_a_second_and_no_jax() -> None:
    code = """
import atexit, sys
atexit.register(lambda: print([name for name in ("jax", "numpy", "flax", "orbax", "scipy") if name in sys.modules]))
from quam_jax.cli import main
main()
"""
    seconds, printed = min(processor_seconds(code, "--help") for _ in range(3))
    assert printed.splitlines()[-1] == "[]" and "Commands" in printed
    assert seconds < 0.5


def test_info_takes_less_than_five_seconds() -> None:
    code = "from quam_jax.cli import main; main()"
    seconds, printed = min(processor_seconds(code, "info") for _ in range(2))
    assert "jax" in printed and seconds < 5
