"""`quam-jax run` on the user's own files, and `quam-jax demo` on what the package ships."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ..cluster.crew import Wanted
from ..config import Config
from .common import PATH, config_options, figures_file, names_of, progress_bar, say, start_jax
from .engine import engine_options, find_engine
from .grouped import Grouped
from .mask_options import mask_options
from .nnunet_folders import find_nnunet_folders

START = """Maps of your images with your network, which must still explain some known images:

  quam-jax run --model net.pth --images scans/ --fit-images train/images --fit-masks train/masks --out maps/

The same for a trained nnU-Net (its environment variables set):

  quam-jax run -d 4 -c 3d_fullres -f 0 --out maps/

Without data of your own: quam-jax demo. The options: quam-jax run --help"""


@click.command(
    cls=Grouped,
    start=START,
    epilog="Example: quam-jax run --model net.pth --images scans/ --masks raters/ --fit-images train/images "
    "--fit-masks train/masks --out maps/",
)
@click.option(
    "--model",
    type=PATH,
    help="Checkpoint (.pth, .pt, .safetensors, .npz), exported graph (.pt2), nnU-Net folder or model folder.",
)
@click.option("-d", "dataset", metavar="DATASET", help="Instead of --model: nnU-Net's data set, 4 or Dataset004_Name.")
@click.option(
    "-c", "configuration", metavar="CONFIG", default="3d_fullres", show_default=True, help="With -d: its configuration."
)
@click.option("-f", "folds", metavar="FOLDS", help="Folds of an nnU-Net model, 0 or 0,1,2; default: all there are.")
@click.option("--trainer", default="nnUNetTrainer", show_default=True, help="With -d: nnU-Net's trainer.")
@click.option("--plans", default="nnUNetPlans", show_default=True, help="With -d: nnU-Net's plans.")
@click.option("--arch", help="Architecture of a checkpoint, where its names do not tell.")
@click.option(
    "-i", "--images", type=PATH, help="Images to map, a folder, file or glob: NIfTI, PNG, JPEG, TIFF, ...; with -d: imagesTs."
)
@click.option("--masks", type=PATH, help="Masks of the images, CASE.ext or CASE_RATER.ext, to score the maps against.")
@click.option("--fit-images", type=PATH, help="Known images that an adversarial model must still explain; with -d: imagesTr.")
@click.option("--fit-masks", type=PATH, help="Their masks; with -d: labelsTr.")
@click.option("-o", "--out", required=True, type=PATH, help="Folder of the run; an interrupted run goes on there.")
@click.option("--overwrite", is_flag=True, help="Replace another run in that folder.")
@click.option("--calibration", type=PATH, help="What `quam-jax calibrate` wrote: every case gets what it guarantees.")
@click.option("--least-dice", type=float, help="With --calibration: name the cases whose Dice may be lower than this.")
@click.option("--strict", is_flag=True, help="Refuse where the network does not explain its own fit data.")
@click.option(
    "--preprocessing",
    type=click.STRING,
    help='JSON such as {"normalise": "fixed", "scale": 255, "mean": [0.5], '
    '"std": [0.5]}; default: what the model was converted with.',
)
@click.option("--part", metavar="K/N", help="Do every N-th case from the K-th on; when all parts are there: quam-jax report OUT.")
@engine_options
@mask_options
@config_options
@click.pass_context
def run(
    context: click.Context,
    config: Config,
    preprocessing: str | None,
    part: str | None,
    model: Path | None,
    dataset: str | None,
    configuration: str,
    folds: str | None,
    trainer: str,
    plans: str,
    calibration: Path | None,
    least_dice: float | None,
    **paths: Any,
) -> int:
    """Uncertainty maps of your own images with your own network.

    One process does it all; with --engine ray several workers share the cases, with --part each process has its own.
    """
    paths["model"] = model
    if dataset is not None:
        if model is not None:
            raise ValueError("-d: names a model of nnU-Net; expected --model or -d, got both")
        found = find_nnunet_folders(dataset, configuration, trainer=trainer, plans=plans)._asdict()
        paths |= {name: folder for name, folder in found.items() if paths[name] is None}
    needed = {"model": "your network", "images": "to map", "fit_images": "known images", "fit_masks": "their masks"}
    missing = [f"--{n.replace('_', '-')} ({text})" for n, text in needed.items() if paths[n] is None]
    if missing:
        alone = " or -d DATASET" if paths["model"] is None else ""
        raise ValueError(f"expected {', '.join(missing)}{alone}, got none; the three lines to start with: quam-jax run")
    if least_dice is not None and calibration is None:
        raise ValueError("--least-dice: expected --calibration beside it, whose guarantee says how low a Dice may be")
    engine = find_engine(paths)
    if engine is not None and part is not None:
        raise ValueError("--part: expected no --engine beside it; an engine deals the cases out itself")
    start_jax()
    from ..runs.guaranteeing import read_calibration
    from ..runs.part import Part

    given = None if calibration is None else read_calibration(calibration, least_dice=least_dice)
    return _run(
        context,
        engine=engine,
        config=config,
        preprocessing=preprocessing,
        folds=names_of(folds),
        calibration=given,
        part=None if part is None else Part.of(part),
        **paths,
    )


@click.command(cls=Grouped, epilog="Example: quam-jax demo --out demo_run")
@click.option("--out", type=PATH, default=Path("quam_jax_demo"), show_default=True, help="Folder of the run.")
@click.option("--overwrite", is_flag=True, help="Replace another run in that folder.")
@config_options
@click.pass_context
def demo(context: click.Context, out: Path, config: Config, overwrite: bool) -> int:
    """Real cell images, eight human raters and a trained network: see what comes out.

    Converts the shipped PyTorch checkpoint to a model folder, then runs the shipped test images.
    """
    start_jax()
    from ..models.conversion import ConvertRequest, convert_model
    from .models import print_converted

    data = Path(__file__).parent.parent / "demo_data"
    conversion = ConvertRequest(data / "model" / "att_unet.pth", out.parent / f"{out.name}_model", arch="att_unet")
    print_converted(context, conversion, convert_model(conversion))
    return _run(
        context,
        config=config,
        model=conversion.out,
        arch=None,
        images=data / "images",
        masks=data / "masks",
        fit_images=data / "fit_images",
        fit_masks=data / "fit_masks",
        out=out,
        overwrite=overwrite,
        preprocessing=None,
    )


def _run(context: click.Context, *, config: Config, preprocessing: str | None, engine: Wanted | None = None, **paths: Any) -> int:
    start_jax()
    from ..data.figures import Figures
    from ..data.preprocess import Preprocessing
    from ..report.tables import format_table, method_table, overview
    from ..runs.on_ray import run_on_ray
    from ..runs.request import RunRequest
    from ..runs.run import run as run_cases

    try:
        chosen = None if preprocessing is None else Preprocessing.from_dict(json.loads(preprocessing))
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"--preprocessing: expected a JSON mapping, got {preprocessing!r} ({error})") from None
    request = RunRequest(config=config, preprocessing=chosen, command=shlex.join(["quam-jax", *sys.argv[1:]]), **paths)
    with progress_bar("cases", quiet=context.obj["quiet"]) as update:
        if engine is None:
            result = run_cases(request, figures=Figures(figures_file()))
        else:
            result = run_on_ray(request, engine, progress=update)
    for name, reason in result.failed.items():
        click.echo(f"failed: {name}: {' '.join(reason.split())}", err=True)
    for note in result.notes:
        say(context, f"note: {note}")
    if request.part is not None:
        click.echo(f"part {request.part} is done; when all parts are: quam-jax report {shlex.quote(str(request.out))}")
    elif any("dice" in row for row in result.rows):
        click.echo(format_table(*overview(result.rows, result.summary)))
        header, table = method_table(result.summary)
        about = (
            "Agreement of each map with the entropy of the raters' mean"
            if "PCC" in header
            else "How well each map finds what the prediction gets wrong (agreement of raters takes two of them)"
        )
        click.echo(f"\n{about}, mean over cases [95 % interval]:")
        click.echo(format_table(header, table))
    else:
        done = len(result.rows) - len(result.failed)
        click.echo(f"{done} case{'s' * (done != 1)} done; without masks of raters there is nothing to score against")
    if result.report.exists():
        click.echo(f"\nreport: {result.report}")
    counts = [f"{len(result.rows) - len(result.failed)} cases done"]
    counts += [f"{len(result.failed)} failed"] if result.failed else []
    counts += [f"{len(result.unused)} {'file' if len(result.unused) == 1 else 'files'} not used"] if result.unused else []
    if len(counts) > 1:
        click.echo(", ".join(counts))
    return 1 if result.failed else 0
