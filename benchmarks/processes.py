"""Runs in processes of their own, over small pictures with a tiny network, and what their folders hold."""

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
SETTINGS = ("--steps", "2", "--learning-rate", "0.01")
TIMES = ("run.json", "timing.csv", "report.html")  # what may differ between two runs of the same
MAIN = "from tests.tiny import tiny_network; from quam_jax.cli import main\nwith tiny_network(): main()"


def build(root: Path, *, cases: int, size: tuple[int, int] = (21, 26), masks: bool = True, known: bool = False) -> list[str]:
    """Data for a run of `cases` small pictures below `root`; returns the options that name it.

    The network is the tiny one of the tests, or one that every process knows.
    """
    from PIL import Image

    from tests.small_run import little_model, picture, prepare_folders, write_cases
    from tests.tiny import picture_model, tiny_network

    names = [f"case{number}" for number in range(cases)]
    with tiny_network():
        prepare_folders(root, model=little_model() if known else picture_model())
    test = root / "many"
    if masks:
        write_cases(test, names)
    else:
        (test / "images").mkdir(parents=True)
        for number, name in enumerate(names):
            Image.fromarray(picture(number, size)).save(test / "images" / f"{name}.png")
    options = {
        "model": root / "model",
        "images": test / "images",
        "fit-images": root / "fit" / "images",
        "fit-masks": root / "fit" / "masks",
        **({"masks": test / "masks"} if masks else {}),
    }
    return [part for name, path in options.items() for part in (f"--{name}", str(path))]


def start(
    options: list[str],
    out: Path,
    *more: str,
    environment: dict[str, str] | None = None,
    limit: tuple[str, int] | None = None,
    checkout: Path = CHECKOUT,
) -> subprocess.Popen[str]:
    """Begin `quam-jax run` in a process of its own, of this checkout or another one, under a limit (its name, and bytes)."""
    # set by the process itself: code between fork and exec may hang where threads hold locks, as JAX's do
    first = "" if limit is None else f"import resource; resource.setrlimit(resource.{limit[0]}, ({limit[1]}, {limit[1]}))\n"
    command = [sys.executable, "-c", first + MAIN, "-q", "run", *options, "--out", str(out), *SETTINGS, *more]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(checkout), **(environment or {})},
        cwd=checkout,
    )


def finish(process: subprocess.Popen[str], *, seconds: float = 600) -> tuple[int, str]:
    """Wait for a process; its exit code and what it said about errors."""
    _, error = process.communicate(timeout=seconds)
    return process.returncode, error


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a finished run, hidden ones too, but those that tell times."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file() and p.name not in TIMES}


def difference(out: Path, expected: dict[str, bytes]) -> list[str]:
    """Names of files that are missing, too many or different."""
    found = contents(out)
    return sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
