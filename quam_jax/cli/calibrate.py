"""`quam-jax calibrate`: from a run and masks of its cases to statements with a guarantee."""

from pathlib import Path
from typing import Any

import click

from .common import PATH, progress_bar, say
from .mask_options import mask_options


@click.command(
    epilog="Example: quam-jax calibrate maps/ --masks raters/ --out guarantee.json   and then   quam-jax run ... "
    "--calibration guarantee.json"
)
@click.argument("run", type=PATH)
@click.option("--masks", type=PATH, help="Masks of the raters, CASE.ext or CASE_RATER.ext; default: those of the run.")
@click.option("--out", required=True, type=PATH, help="File to write the guarantee to (JSON), with a picture beside it.")
@click.option("--alpha", default=0.1, show_default=True, help="How much may be missed, on average, or how often an interval may.")
@click.option(
    "--map", "map_name", default="", help="The map to use; default: chosen on a third of the cases, if there are enough."
)
@click.option("--patient", help="Regular expression that finds the patient in the name of a case; of each one case counts.")
@click.option(
    "--training",
    "training",
    multiple=True,
    type=PATH,
    help="Folder of images that the network was trained on: none of them may be a calibration case.",
)
@mask_options
@click.pass_context
def calibrate(context: click.Context, run: Path, out: Path, training: tuple[Path, ...], **options: Any) -> int:
    """Turn maps into statements with a guarantee, from cases with masks that the network was not trained on.

    A review zone that holds all but a share alpha of the wrong pixels, masks that bound every structure, intervals of its
    volume, and the Dice that a case can be counted on to have. They hold on average over cases like these.
    """
    from ..results.calibrate_run import CalibrateRequest, calibrate_run
    from ..results.guarantee_words import describe_guarantee

    request = CalibrateRequest(run=run, out=out, training=tuple(training), **options)
    with progress_bar("cases", quiet=context.obj["quiet"], listen=False) as update:
        guarantee, failed, notes = calibrate_run(request, progress=update)
    for line in describe_guarantee(guarantee):
        click.echo(line)
    for note in (*notes, *guarantee.notes):
        say(context, f"note: {note}")
    for name, reason in failed.items():
        say(context, f"failed: {name}: {reason}")
    click.echo(f"\nguarantee: {out}")
    return 1 if failed else 0
