"""`quam-jax slicer`: open a case of a run in 3D Slicer."""

from pathlib import Path

import click

from .common import PATH


@click.command(epilog="Example: quam-jax slicer maps/case01.json")
@click.argument("case", type=PATH)
@click.option("--slicer", "program", metavar="PATH", help="The program, where it is not on the path.")
def slicer(case: Path, program: str | None) -> None:
    """Open the image, maps and prediction of a case (its CASE.json) in 3D Slicer."""
    from ..report.slicer import open_case

    open_case(case, program)
