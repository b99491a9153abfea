"""`quam-jax train`: a small network on images with masks, with resume."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..training.settings import TrainConfig
from .common import PATH, option_of, progress_bar, say, start_jax


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
    type=click.Choice(["segmentation", "evidential", "prob_unet"]),
    default="segmentation",
    show_default=True,
    help="evidential: outputs are the evidence of a Dirichlet; prob_unet: the bound of a Probabilistic U-Net (--arch "
    "prob_unet), on one rater's mask at a time. For the rows of these names in benchmark methods.",
)
@train_options
@click.pass_context
def train(
    context: click.Context,
    images: Path,
    masks: Path,
    out: Path,
    arch: str,
    arguments: str,
    classes: int,
    loss: str,
    config: TrainConfig,
) -> None:
    """Train a small network on images with masks; the same command goes on after an interruption."""
    start_jax()
    import numpy as np

    from ..baselines.evidential import evidential_loss
    from ..baselines.prob_unet import prob_unet_loss
    from ..data.datasets import find_cases
    from ..data.preprocess import Preprocessing, to_slices
    from ..data.volumes import read_channels, read_labels
    from ..evaluation.reference_maps import rater_mean
    from ..models.folder import save_model
    from ..models.model import Network
    from ..training.trainer import train as train_network
    from .models import parse_json

    cases = find_cases(images, masks)
    unlabelled = [c.name for c in cases if not c.raters]
    if unlabelled:
        raise ValueError(f"{masks}: expected a mask for every image, got none for {', '.join(unlabelled[:5])}")
    read = [read_channels(case.files) for case in cases]
    channels = read[0].array.shape[-1]
    network = Network.create(
        arch, **{"in_channels": channels, "n_classes": classes, **(parse_json("--arguments", arguments) or {})}
    )
    if (loss == "prob_unet") != (network.architecture == "prob_unet"):
        raise ValueError(f"--loss prob_unet: expected together with --arch prob_unet, got --loss {loss} --arch {arch}")
    preprocessing = Preprocessing(normalise="zscore", channels=channels)
    examples: list[tuple[Any, Any]] = []
    for case, image in zip(cases, read, strict=True):
        raters = np.stack([read_labels(path, classes=classes, like=image.geometry) for path in case.raters.values()])
        picture = preprocessing.apply(image.array)
        for group in raters[:, None] if loss == "prob_unet" else raters[None]:  # one mask at a time, or all together
            wanted = rater_mean(group, classes=classes).astype(np.float32)
            if picture.ndim - 1 > network.rank:
                examples += list(zip(to_slices(picture), to_slices(wanted), strict=True))
            else:
                examples.append((picture, wanted))
    state = out.parent / f"{out.name}.training"
    losses: dict[str, Callable[..., Any]] = {"evidential": evidential_loss, "prob_unet": prob_unet_loss}
    with progress_bar("steps", quiet=context.obj["quiet"]) as update:
        model = train_network(
            network,
            examples,
            config=config,
            checkpoint=state,
            loss=losses.get(loss),
            progress=lambda step, value: update(f"loss {value:.4f}", step, config.steps),
        )
    model.manifest["training"]["loss"] = loss
    model.manifest["preprocessing"] = preprocessing.to_dict()
    save_model(out, model)
    say(context, f"{network.architecture} trained on {len(examples)} images for {config.steps} steps -> {out}")
