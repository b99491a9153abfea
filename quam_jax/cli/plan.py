"""`quam-jax plan`: what a large run will take, from a short measured probe of it."""

import json
import time
from pathlib import Path
from typing import Any

import click

from ..config import Config
from .common import PATH, config_options, figures_file, progress_bar, start_jax
from .grouped import Grouped
from .mask_options import mask_options


@click.command(
    cls=Grouped,
    epilog="Example: quam-jax plan --model net.pth --images scans/ --fit-images train/images --fit-masks train/masks "
    "--cases 1000000 --devices 64 --workers 8 --price 2.50",
)
@click.option("--model", required=True, type=PATH, help="Model folder, or a checkpoint.")
@click.option("--arch", help="Architecture of a checkpoint, where its names do not tell.")
@click.option("--images", required=True, type=PATH, help="Some of the images, such as they will be.")
@click.option("--masks", type=PATH, help="Their masks, if the run will have some: scoring takes time.")
@click.option("--fit-images", required=True, type=PATH, help="Images an adversarial model must still explain.")
@click.option("--fit-masks", required=True, type=PATH, help="Their masks.")
@click.option("--cases", type=click.IntRange(1), required=True, help="Cases of the whole run.")
@click.option("--devices", type=click.IntRange(1), default=1, show_default=True, help="Devices of all processes, as here.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Workers of an engine; 1: one process.")
@click.option("--price", type=float, help="Price of a device hour, in any currency.")
@click.option("--probe-cases", type=click.IntRange(1), default=4, show_default=True, help="Cases that are measured.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@mask_options
@config_options(without=("devices",))  # those of the run, not of the probe
@click.pass_context
def plan(
    context: click.Context,
    config: Config,
    cases: int,
    devices: int,
    workers: int,
    price: float | None,
    probe_cases: int,
    as_json: bool,
    **paths: Any,
) -> None:
    """Predict time, memory and cost of a large run, and say how it would be laid out."""
    start_jax()
    from ..data.figures import Figures
    from ..runs.planning import plan_run, time_a_case
    from ..runs.request import RunRequest

    request = RunRequest(out=Path("probe"), config=config, **paths)
    imports = time.process_time()
    with progress_bar("cases", quiet=context.obj["quiet"]):
        planned = plan_run(
            request,
            cases=cases,
            devices=devices,
            workers=workers,
            price=price,
            probe_cases=probe_cases,
            imports=imports,
            figures=Figures(figures_file()),
        )
    if as_json:
        click.echo(json.dumps(planned.to_dict(), indent=1))
        return
    measured, estimate, layout = planned
    each = time_a_case(measured, config).wall
    click.echo(
        f"measured on {measured.cases} cases: start {measured.start.wall:.1f} s, compilation "
        f"{measured.compile.wall:.1f} s for each of {measured.sizes} image sizes, {each:.3g} s a case, "
        f"merging {measured.merge.wall:.2g} s a case"
    )
    click.echo(f"layout: {layout}")
    click.echo(
        f"{cases:,} cases on {devices} devices with {workers} workers: {_span(estimate.seconds)}, "
        f"{estimate.device_hours:,.1f} device hours, {estimate.memory / 2**30:.2f} GiB of memory a process, "
        f"{estimate.disk / 2**30:,.1f} GiB on disk" + ("" if estimate.price is None else f", price {estimate.price:,.2f}")
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
