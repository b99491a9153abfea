"""`quam-jax report`: build report.html again from the files of a run, of one in parts its tables too."""

from pathlib import Path

import click

from .common import PATH


@click.command(epilog="Example: quam-jax report maps/")
@click.argument("run_folder", type=PATH)
@click.option("--pdf", is_flag=True, help="Write report.pdf too, a case a page, by a Chromium, Chrome or Edge on the path.")
def report(run_folder: Path, pdf: bool) -> None:
    """Build report.html again from a run folder; put a run in parts together, once all of them are there."""
    from ..report.html import write_report
    from ..report.pdf import find_browser, write_pdf

    if pdf:
        find_browser()  # before anything is written
    from ..runs.ending import has_parts, join

    if has_parts(run_folder):
        result = join(run_folder)
        click.echo(f"{len(result.rows) - len(result.failed)} cases done, {len(result.failed)} failed")
    page = write_report(run_folder)
    click.echo(f"report: {page}")
    if pdf:
        click.echo(f"printed: {write_pdf(page)}")
