"""`quam-jax convert`, `export` and `info`: models in, models out, and what this machine has."""

import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import PATH, cache_folder, parse_json, say, start_jax

if TYPE_CHECKING:
    from ..models.conversion import Converted, ConvertRequest


@click.command(epilog="Example: quam-jax convert net.pth net/ --arch att_unet --arguments '{\"drop\": 0.0}'")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@click.option("--arch", help="Architecture, where the names in the file do not tell.")
@click.option("--arguments", help="JSON of constructor arguments that the shapes cannot tell, e.g. dropout rates.")
@click.option("--preprocessing", help='JSON, e.g. {"normalise": "fixed", "scale": 255, "mean": [0.5], "std": [0.5]}.')
@click.option("--class-names", help="Names of the classes, or of independent channels, separated by commas.")
@click.option(
    "--outputs",
    type=click.Choice(["softmax", "sigmoid"]),
    help="What output channels mean: classes of which a pixel has one (softmax), or independent yes or no each (sigmoid, "
    "multi-label); default: softmax, for one channel sigmoid, or what the end of a graph says.",
)
@click.option(
    "--channel-labels",
    "regions",
    help="JSON of the mask labels that each independent channel stands for, in order, e.g. "
    '{"TC": [1, 3], "WT": [1, 2, 3], "ET": 3}; '
    "default: channel k is label k + 1, or label k where the first name is background.",
)
@click.option("--output", help="Which of several values that a graph returns are the logits: its name, or its number from 0.")
@click.option("--part", help="Which of several networks in a weight file: a key (ema), or what its names begin with (teacher).")
@click.option("--fold", help="Fold of an nnU-Net folder.")
@click.option("--configuration", help="Configuration of an nnU-Net folder, e.g. 3d_fullres.")
@click.option("--verify", type=PATH, help="NPZ with `input` and `logits` [b c *space] of the original network.")
@click.pass_context
def convert(
    context: click.Context,
    source: Path,
    out: Path,
    arguments: str | None,
    preprocessing: str | None,
    class_names: str | None,
    regions: str | None,
    **options: Any,
) -> int:
    """Turn a PyTorch checkpoint, an exported graph (.pt2) or an nnU-Net folder into a model folder."""
    start_jax()
    from ..models.conversion import ConvertRequest, convert_model

    request = ConvertRequest(
        source,
        out,
        arguments=parse_json("--arguments", arguments) or {},
        preprocessing=parse_json("--preprocessing", preprocessing),
        regions=parse_json("--channel-labels", regions),
        class_names=None if class_names is None else tuple(name.strip() for name in class_names.split(",")),
        **options,
    )
    result = convert_model(request)
    print_converted(context, request, result)
    return 1 if result.differs else 0


def print_converted(context: click.Context, request: "ConvertRequest", result: "Converted") -> None:
    """Say what a model was converted to, and how it compares with the original."""
    if result.parity is not None:
        say(
            context,
            f"parity with {result.reference}: {result.parity['verdict']}, largest difference {result.parity['max_abs']:.3g} "
            f"({result.parity['relative']:.3g} of the {result.parity['compared'].replace('ies', 'y').rstrip('s')} range)",
        )
    network, outputs = result.model.network, result.model.manifest.get("outputs", {})
    taken = request.outputs is None and outputs == {"meaning": "softmax"}
    for note in result.notes:
        say(context, f"note: {note}")
    say(
        context,
        f"{request.source.name}: {network.architecture}, {network.in_channels} channels in, {network.classes} classes"
        f"{' (a softmax; independent channels: --outputs sigmoid)' if taken else ''}, "
        f"{result.model.parameter_count:,} weights, every name and shape used -> {request.out}",
    )


@click.command(epilog="Example: quam-jax export net/ net.safetensors")
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
def export(model: Path, out: Path) -> None:
    """Write a model's weights back as a PyTorch (.pth) or safetensors file, with their original names."""
    start_jax()
    from ..models.conversion import export_model

    export_model(model, out)
    click.echo(str(out))


@click.command(epilog="Example: quam-jax info")
@click.argument("model", type=PATH, required=False)
def info(model: Path | None) -> None:
    """Devices, versions and caches; or what a model is."""
    start_jax()
    import importlib.metadata

    import jax

    if model is not None:
        from ..models.description import describe_model
        from ..models.loading import load_model

        click.echo(json.dumps(describe_model(load_model(model)), indent=2, default=str))
        return
    names = ("quam_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "nibabel")
    click.echo(f"python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} processors")
    click.echo("  ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
    for device in jax.devices():
        memory = (device.memory_stats() or {}).get("bytes_limit")
        click.echo(
            f"device {device.id}: {device.platform} {device.device_kind}" + (f", {memory / 2**30:.1f} GiB" if memory else "")
        )
    folder = cache_folder()
    files = [f for f in folder.glob("*") if f.is_file()] if folder.is_dir() else []
    click.echo(f"compilation cache {folder}: {len(files)} files, {sum(f.stat().st_size for f in files) / 2**20:.1f} MiB")
