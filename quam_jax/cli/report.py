"""`quam-jax report`: build report.html again from the files of a run."""

from pathlib import Path

import click

from .common import PATH


@click.command(epilog="Example: quam-jax report maps/")
@click.argument("run_folder", type=PATH)
def report(run_folder: Path) -> None:
    """Build report.html again from a run folder."""
    from ..report.html import write_report

    click.echo(f"report: {write_report(run_folder)}")
