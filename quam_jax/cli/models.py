"""`quam-jax convert`, `export` and `info`: models in, models out, and what this machine has."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import click

from .common import PATH, cache_folder, say, start_jax


@click.command(epilog="Example: quam-jax convert net.pth net/ --arch att_unet --arguments '{\"drop\": 0.0}'")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@click.option("--arch", help="Architecture, where the names in the file do not tell.")
@click.option("--arguments", help="JSON of constructor arguments that the shapes cannot tell, e.g. dropout rates.")
@click.option("--preprocessing", help='JSON, e.g. {"normalise": "fixed", "scale": 255, "mean": [0.5], "std": [0.5]}.')
@click.option("--class-names", help="Names of the classes, separated by commas.")
@click.option("--fold", help="Fold of an nnU-Net folder.")
@click.option("--configuration", help="Configuration of an nnU-Net folder, e.g. 3d_fullres.")
@click.option("--verify", type=PATH, help="NPZ with `input` and `logits` [b c *space] of the original network.")
@click.pass_context
def convert(context: click.Context, source: Path, out: Path, arch: str | None, **options: Any) -> int:
    """Turn a PyTorch checkpoint, an exported graph (.pt2) or an nnU-Net folder into a model folder."""
    start_jax()
    return convert_checkpoint(context, source, out, arch=arch, **options)


def convert_checkpoint(
    context: click.Context,
    source: Path,
    out: Path,
    *,
    arch: str | None,
    arguments: str | None = None,
    preprocessing: str | None = None,
    class_names: str | None = None,
    fold: str | None = None,
    configuration: str | None = None,
    verify: Path | None = None,
) -> int:
    """Read, map, check and save a checkpoint; 1 if a reference was given and the logits differ from it."""
    from converters.parity import check_parity, record_parity

    from ..data.preprocess import Preprocessing
    from ..models.folder import save_model
    from ..models.loading import load_model

    given = parse_json("--arguments", arguments) or {}
    model = load_model(source, arch, fold=fold, configuration=configuration, **given)
    if preprocessing is not None:
        settings = {"channels": model.network.in_channels, **(parse_json("--preprocessing", preprocessing) or {})}
        model.manifest["preprocessing"] = Preprocessing.from_dict(settings).to_dict()
    if class_names is not None:
        names = [name.strip() for name in class_names.split(",")]
        if len(names) != model.network.classes:
            raise ValueError(f"--class-names: expected {model.network.classes} names, got {len(names)}")
        model.manifest["class_names"] = names
    code = 0
    if verify is not None:
        if not verify.is_file():
            raise ValueError(f"--verify {verify}: expected an NPZ file with input and logits, got nothing there")
        parity = check_parity(model, reference=verify)
        model = record_parity(model, parity)
        code = 0 if parity["verdict"] == "equal" else 1
        say(
            context,
            f"parity with {verify.name}: {parity['verdict']}, largest difference {parity['max_abs']:.3g} "
            f"({parity['relative']:.3g} of the logit range)",
        )
    elif (live := model.manifest.get("parity", {})).get("kind") == "live PyTorch":
        say(
            context,
            f"parity with the graph in PyTorch: {live['verdict']}, largest difference {live['max_abs']:.3g} "
            f"({live['relative']:.3g} of the logit range)",
        )
    save_model(out, model)
    say(
        context,
        f"{source.name}: {model.network.architecture}, {model.network.in_channels} channels in, "
        f"{model.network.classes} classes, {model.parameter_count:,} weights, every name and shape used -> {out}",
    )
    return code


@click.command(epilog="Example: quam-jax export net/ net.safetensors")
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
def export(model: Path, out: Path) -> None:
    """Write a model's weights back as a PyTorch (.pth) or safetensors file, with their original names."""
    start_jax()
    from converters.export import export_weights

    from ..models.loading import load_model

    export_weights(load_model(model), out)
    click.echo(str(out))


@click.command(epilog="Example: quam-jax info")
@click.argument("model", type=PATH, required=False)
def info(model: Path | None) -> None:
    """Devices, versions and caches; or what a model is."""
    start_jax()
    import importlib.metadata

    import jax

    if model is not None:
        from ..models.loading import load_model

        loaded = load_model(model)
        shown = {
            "architecture": loaded.network.architecture,
            "arguments": dict(loaded.network.arguments),
            "weights": loaded.parameter_count,
            "sides multiple of": loaded.network.size_multiple,
            "cuts": list(loaded.network.cuts),
            **{k: v for k, v in loaded.manifest.items() if k != "set_aside"},
        }
        click.echo(json.dumps(shown, indent=2, default=str))
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


def parse_json(name: str, text: str | None) -> dict[str, Any] | None:
    """The JSON mapping an option was given, None without the option; ValueError for anything else."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: expected JSON, got {text!r} ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON mapping, got {text!r}")
    return value
