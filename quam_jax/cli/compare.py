"""`quam-jax compare`: two runs of one patient, and which changes exceed what uncertainty explains."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from .common import PATH, progress_bar, say


@click.command(epilog="Example: quam-jax compare run_2024/ run_2025/ --out change/")
@click.argument("baseline", type=PATH)
@click.argument("followup", type=PATH)
@click.option("--out", required=True, type=PATH, help="Folder of the comparison.")
@click.option("--case", help="The case to compare, where a run has several.")
@click.option(
    "--affine",
    type=PATH,
    help="Text file of 4x4 numbers: millimetres of the baseline to those of the follow-up, for dates on two grids.",
)
@click.option("--level", type=click.FLOAT, default=0.95, show_default=True, help="How sure all changes must be, together.")
@click.option(
    "--least", type=click.FLOAT, default=0.1, show_default=True, help="The change of probability that is none yet, from 0 to 1."
)
@click.option("--overwrite", is_flag=True, help="Replace another comparison in that folder.")
@click.pass_context
def compare(context: click.Context, baseline: Path, followup: Path, **options: Any) -> None:
    """Which changes between two runs of one patient exceed what uncertainty explains?

    BASELINE and FOLLOWUP are folders that `quam-jax run` wrote, or the CASE.json of one of their cases.
    """
    from ..report.comparison_page import exceeding
    from ..report.tables import format_table
    from ..results.compare_runs import CompareRequest, compare_runs

    request = CompareRequest(baseline, followup, command=shlex.join(["quam-jax", *sys.argv[1:]]), **options)
    with progress_bar("parts", quiet=context.obj["quiet"], listen=False) as update:
        result = compare_runs(request, progress=update)
    for note in result.record["notes"]:
        say(context, f"note: {note}")
    rows = [
        [
            name,
            *(
                f"{row[date + '_ml']:.3f} [{row[date + '_low_ml']:.3f}, {row[date + '_high_ml']:.3f}]"
                for date in ("baseline", "followup", "change")
            ),
            row["exceeds"],
        ]
        for name, row in result.record["structures"].items()
    ]
    if rows:
        click.echo(format_table(["structure", "baseline, ml", "follow-up, ml", "change, ml", "exceeds"], rows))
    changes = result.record["changes"]
    more = [row for row in changes if row["exceeds"] == "yes"]
    click.echo(f"\n{exceeding(len(more), len(changes))}")
    for row in more[:10]:
        click.echo(
            f"  {row['change']}: {row['before']} to {row['after']}, {row['volume_ml']:.3f} ml, probability "
            f"{row['probability']:.4f}, at voxel {row['peak']}"
        )
    click.echo(f"\nreport: {result.page}")
