"""`quam-jax evaluate`: maps of a run, or map files of any tool, against the masks of several raters."""

from collections.abc import Mapping
from typing import Any

import click

from .common import PATH, progress_bar, say
from .engine import engine_options, find_engine
from .mask_options import mask_options

_SHOWN = ("pcc", "r2_pearson", "sdice_product_minmax", "partial_pcc_distance", "auroc_image", "aurc_image")


@click.command(
    epilog="Example: quam-jax evaluate maps/ --masks raters/ --out scores/   or   quam-jax evaluate --map "
    "entropy=other_tool/ --masks raters/ --out scores/"
)
@click.argument("run", required=False, type=PATH)
@click.option(
    "--map",
    "maps",
    multiple=True,
    help="NAME=FOLDER of map files CASE.npz or CASE.ext (NIfTI and other images), instead of a run folder.",
)
@click.option("--segmentation", type=PATH, help="With --map: folder of label maps CASE.ext; without it no error is counted.")
@click.option("--masks", type=PATH, help="Masks of the raters, CASE.ext or CASE_RATER.ext; default: those of the run.")
@click.option("--classes", default=2, show_default=True, help="With --map: classes of the masks, the background among them.")
@click.option("--band", default=3.0, show_default=True, help="Width of the boundary band, in mm where images have a spacing.")
@click.option("--tolerance", default=1.0, show_default=True, help="Tolerance of the surface Dice, in the same unit.")
@click.option("--out", type=PATH, help="Folder for evaluation.html, .csv and .json; of a run: instead of its own tables.")
@engine_options
@mask_options
@click.pass_context
def evaluate(context: click.Context, **options: Any) -> int:
    """Score uncertainty maps against several raters: agreement, calibration, failure detection, overlap, surfaces.

    A run folder without --out is scored where it is: its tables, its report and the JSON of its cases are written again, as
    run --masks writes them. No map is touched.
    """
    engine = find_engine(options)
    from ..results.evaluate_files import EvaluateRequest, evaluate_files
    from ..results.on_ray import evaluate_on_ray, score_on_ray
    from ..results.score_run import score_run

    request = EvaluateRequest(**options)
    with progress_bar("cases", quiet=context.obj["quiet"], listen=False) as update:
        if request.run is not None and request.out is None and not request.maps:
            plain = EvaluateRequest()
            if (request.band, request.tolerance) != (plain.band, plain.tolerance):
                raise ValueError("--band and --tolerance: expected --out beside them; the tables of a run have those of a run")
            scores = (request.run, request.masks, request.mask_settings)
            found = score_run(*scores, progress=update) if engine is None else score_on_ray(*scores, engine, progress=update)
        elif engine is None:
            found = evaluate_files(request, progress=update)
        else:
            found = evaluate_on_ray(request, engine, progress=update)
    rows, failed, summary, notes = found
    click.echo(_table(summary))
    for note in notes:
        say(context, f"note: {note}")
    for note in dict.fromkeys(row["note"] for row in rows if "note" in row):
        say(context, f"{sum(row.get('note') == note for row in rows)} of {len(rows)} cases: {note}")
    for name, reason in failed.items():
        say(context, f"failed: {name}: {reason}")
    return 1 if failed else 0


def _table(summary: Mapping[str, Mapping[str, float]]) -> str:
    kinds = dict.fromkeys(name.rpartition("/")[0] for name in summary if "/" in name)
    lines = ["  ".join(["map".ljust(12), *(figure.rjust(20) for figure in _SHOWN)])]
    for kind in kinds:
        columns = [summary.get(f"{kind}/{figure}") for figure in _SHOWN]
        lines.append(
            "  ".join([kind.ljust(12), *(("-" if c is None else f"{c['mean']:.3f} ±{c['sd']:.3f}").rjust(20) for c in columns)])
        )
    overall = [f"{name} {summary[name]['mean']:.3f}" for name in ("dice_consensus", "ece_soft", "nll_raters") if name in summary]
    return "\n".join([*lines, "  ".join(overall)])
