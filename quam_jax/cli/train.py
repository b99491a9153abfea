"""`quam-jax train`: a small network on images with masks, with resume."""

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..data.mask_settings import MaskSettings
from ..training.request import LossName, TrainRequest
from ..training.settings import TrainConfig
from .common import PATH, option_of, parse_json, progress_bar, say, start_jax
from .mask_options import mask_options


def train_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every field of TrainConfig as an option; the command receives `config`."""
    fields = dataclasses.fields(TrainConfig)

    def wrapped(*args: Any, **options: Any) -> Any:
        given = {f.name: options.pop(f.name) for f in fields}
        return command(*args, config=TrainConfig(**{n: v for n, v in given.items() if v is not None}), **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for field in reversed(fields):
        wrapped = option_of(field, show=str(field.default))(wrapped)
    return wrapped


@click.command(epilog="Example: quam-jax train --images train/images --masks train/masks --out net/ --steps 2000")
@click.option("--images", required=True, type=PATH, help="Folder of images: NIfTI, PNG, JPEG, BMP, TIFF.")
@click.option("--masks", required=True, type=PATH, help="Masks of one or several raters: CASE.ext, CASE_RATER.ext.")
@click.option("--out", required=True, type=PATH, help="Model folder to write; the training state lies beside it.")
@click.option("--arch", default="att_unet", show_default=True, help="Architecture.")
@click.option(
    "--arguments",
    default='{"channels": 16, "drop": 0.0, "decoder_drop": 0.0}',
    show_default=True,
    help="JSON of constructor arguments.",
)
@click.option("--classes", default=2, show_default=True, help="Classes, the background among them.")
@click.option(
    "--loss",
    type=click.Choice(typing.get_args(LossName)),
    default="segmentation",
    show_default=True,
    help="evidential: outputs are the evidence of a Dirichlet; prob_unet: the bound of a Probabilistic U-Net (--arch "
    "prob_unet), on one rater's mask at a time. For the rows of these names in benchmark methods.",
)
@train_options
@mask_options
@click.pass_context
def train(
    context: click.Context,
    images: Path,
    masks: Path,
    out: Path,
    arch: str,
    arguments: str,
    classes: int,
    loss: LossName,
    config: TrainConfig,
    mask_settings: MaskSettings,
) -> None:
    """Train a small network on images with masks; the same command goes on after an interruption."""
    start_jax()
    from ..training.files import train_from_files

    request = TrainRequest(
        images, masks, out, arch, parse_json("--arguments", arguments) or {}, classes, loss, config, mask_settings
    )
    with progress_bar("steps", quiet=context.obj["quiet"]) as update:
        result = train_from_files(request, progress=lambda step, value: update(f"loss {value:.4f}", step, config.steps))
    for note in result.notes:
        say(context, f"note: {note}")
    architecture = result.model.network.architecture
    say(context, f"{architecture} trained on {result.examples} images for {config.steps} steps -> {out}")
