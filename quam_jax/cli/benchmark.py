"""`quam-jax benchmark`: the measurements of the source checkout, each with its own options (`quam-jax benchmark NAME --help`).

They need PyTorch and other packages that this one does not, so they live beside the package in `benchmarks/` and run in a
process of their own.
"""

import subprocess
import sys
from pathlib import Path

import click

from .methods import methods

# command -> module of benchmarks, and what it measures
BENCHMARKS = {
    "forward": ("forward", "Every network against PyTorch: forward pass, and forward and backward pass."),
    "search-step": ("search_step", "One search step of the attention U-Net against PyTorch."),
    "search-masks": ("search_masks", "Masks in the full space against the published procedure and the best PyTorch."),
    "search-pixels": ("search_pixels", "Every pixel in the head and the last block against PyTorch."),
    "scaling": ("scaling", "Seconds and memory from a thousand to a million targets."),
    "volume": ("volume", "A volume by a real nnU-Net model: prediction against PyTorch, its boundary band searched."),
}


@click.group(epilog="Example: quam-jax benchmark forward")
def benchmark() -> None:
    """Measure speed against PyTorch, from a source checkout; results are written to benchmarks/results/."""


def run_benchmark(module: str, arguments: tuple[str, ...]) -> int:
    """Run `python -m benchmarks.MODULE`; ValueError without a source checkout."""
    root = checkout(module)
    return subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *arguments], cwd=root, check=False).returncode


def checkout(module: str) -> Path:
    """The folder that holds `benchmarks/MODULE.py`: that of an editable installation, or the current one."""
    for root in (Path(__file__).parent.parent.parent, Path.cwd()):
        if (root / "benchmarks" / f"{module}.py").is_file():
            return root
    raise ValueError(f"benchmarks/{module}.py: expected a source checkout (pip install -e . in it, or run it there), got none")


def _command(name: str, module: str, text: str) -> click.Command:
    @click.pass_context
    def call(context: click.Context, arguments: tuple[str, ...]) -> None:
        code = run_benchmark(module, arguments)
        if code:
            context.exit(code)

    return click.Command(
        name,
        callback=call,
        help=text,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )


benchmark.add_command(methods)
for _name, (_module, _text) in BENCHMARKS.items():
    benchmark.add_command(_command(_name, _module, _text))
