"""`quam-jax rank`: which cases and regions of a run to look at or label next."""

from pathlib import Path

import click

from ..evaluation.review import CASE_CRITERIA, REGION_CRITERIA
from .common import PATH, progress_bar, say

SHOWN = 10  # rows printed


@click.command(epilog="Example: quam-jax rank maps/ --out review/")
@click.argument("run_folder", type=PATH)
@click.option(
    "--by",
    default="total,changed",
    show_default=True,
    help=f"What orders the cases, some of {', '.join(CASE_CRITERIA)}; of several, with commas, the mean rank.",
)
@click.option(
    "--regions-by", default="epistemic", show_default=True, help=f"What orders the regions, some of {', '.join(REGION_CRITERIA)}."
)
@click.option("--top", default=0.2, show_default=True, help="Share of the cases that is suggested.")
@click.option(
    "--threshold",
    default=0.0,
    show_default=True,
    help="Epistemic nats from which on pixels make a region; 0: a quarter of the scale of the report.",
)
@click.option("--least", default=4, show_default=True, help="Pixels of the smallest region.")
@click.option("--out", type=PATH, help="Folder to write to; default: RUN/review.")
@click.pass_context
def rank(
    context: click.Context, run_folder: Path, by: str, regions_by: str, top: float, threshold: float, least: int, out: Path | None
) -> None:
    """Order the cases and regions of a run by the expected benefit of a look or a label."""
    from ..report.tables import format_table, show
    from ..results.review import rank_run

    criteria, region_criteria = ([name.strip() for name in text.split(",") if name.strip()] for text in (by, regions_by))
    with progress_bar("cases", quiet=context.obj["quiet"], listen=False) as update:
        review = rank_run(
            run_folder,
            out or run_folder / "review",
            by=criteria,
            regions_by=region_criteria,
            top=top,
            threshold=threshold,
            least=least,
            progress=update,
        )
    suggested = sum(row["suggested"] == "yes" for row in review.cases)
    click.echo(f"{suggested} of {len(review.cases)} cases suggested; {len(review.regions)} regions. First cases:")
    click.echo(
        format_table(
            ["rank", "case", "score", *criteria],
            [[str(r["rank"]), r["case"], show(r["score"]), *(show(r[c]) for c in criteria)] for r in review.cases[:SHOWN]],
        )
    )
    if review.regions:
        click.echo("\nFirst regions (label: its number in CASE_desc-review_dseg):")
        click.echo(
            format_table(
                ["rank", "case", "label", "at", "pixels", *region_criteria],
                [
                    [
                        str(r["rank"]),
                        r["case"],
                        str(r["label"]),
                        r["at"],
                        str(r["pixels"]),
                        *(show(r[c]) for c in region_criteria),
                    ]
                    for r in review.regions[:SHOWN]
                ],
            )
        )
    for name, reason in review.left_out.items():
        say(context, f"left out: {name}: {reason}")
    click.echo(f"\nreview list: {review.files[0].parent}")
