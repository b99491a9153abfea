"""Options that say what masks hold, for every command that reads some."""

from collections.abc import Callable
from typing import Any

import click

from ..data.mask_settings import AUTO, MaskSettings


def mask_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of MaskSettings; the command receives `mask_settings`."""

    def wrapped(*args: Any, ignore_label: str, mask_values: str, mask_threshold: float | None, **options: Any) -> Any:
        return command(*args, mask_settings=MaskSettings(ignore_label, mask_values, mask_threshold), **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (
        click.option(
            "--mask-threshold", type=click.FLOAT, help="What is above it in masks is label 1 of two: for JPEG and soft edges."
        ),
        click.option(
            "--mask-values",
            default="",
            help="What labels 0, 1, ... are in masks: 0,128,255, or 0,1+2 (both label 1), or #000000,#ff0000, or the file of a "
            "colour table (3D Slicer, ITK-SNAP, lines LABEL,R,G,B). Default: the labels themselves, or 0 and one other value.",
        ),
        click.option(
            "--ignore-label",
            default=AUTO,
            show_default=True,
            help="What in masks nobody rated: a number, a colour #rrggbb, or none; auto: the ignore label of an nnU-Net model, "
            "else 255 where it stands beside labels.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped
