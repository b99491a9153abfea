"""Models on disk: a folder with `manifest.json` (what a person reads) and `weights/` (Orbax).

The manifest holds the architecture with its arguments, the preprocessing, the class names, where the weights came from
(file, hash) and the parity figure of the conversion. A folder is written beside its place and moved there when complete.
"""

import json
import reprlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from .model import Network, SegmentationModel
from .outputs import read_outputs
from .wrapped import WrappedNetwork

FORMAT = 1
Shapes = dict[str, tuple[int, ...]]


def save_model(path: str | Path, model: SegmentationModel) -> None:
    """Write a model folder; ValueError if something else is in its place, or for a network in memory (`wrap`)."""
    path = Path(path).absolute()
    if isinstance(model.network, WrappedNetwork):
        raise ValueError(
            f"{path}: {model.network.architecture} is a network in memory, whose function has no file; quam_jax.run takes it "
            "from Python, and a PyTorch module can be saved after quam_jax.from_torch"
        )
    if path.exists() and not is_model_folder(path) and (path.is_file() or any(path.iterdir())):
        raise ValueError(f"{path}: expected a new folder or a model folder, got something else that is in the way")
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(staging / "weights", {"params": model.params, "stats": model.stats})
        success = staging / "weights" / "commit_success.txt"
        if success.exists():  # it names the temporary folder
            success.write_text("complete\n")
        manifest = {
            "format": FORMAT,
            "architecture": model.network.architecture,
            "arguments": dict(model.network.arguments),
            **model.manifest,
        }
        (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        staging.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        staging.rename(path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def is_model_folder(path: str | Path) -> bool:
    """Whether a folder looks like one that save_model wrote."""
    return (Path(path) / "manifest.json").is_file() and (Path(path) / "weights").is_dir()


def restore_model(path: str | Path) -> SegmentationModel:
    """Read a model folder; ValueError if it is not one, or its weights do not fit its manifest."""
    path = Path(path).absolute()
    if not is_model_folder(path):
        raise ValueError(f"{path}: expected a model folder (manifest.json and weights/), got none")
    manifest = _read_manifest(path / "manifest.json")
    network, shapes = _network(manifest.pop("architecture"), manifest.pop("arguments"), path / "manifest.json")
    manifest.pop("format")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params, stats = ({n: jax.ShapeDtypeStruct(s, np.float32, sharding=device) for n, s in kind.items()} for kind in shapes)
    try:
        with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
            weights = checkpointer.restore(path / "weights", {"params": params, "stats": stats})
    except Exception as error:  # orbax raises many kinds for a damaged folder; the edge needs one clear line
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path / 'weights'}: cannot be read as the weights of {network.architecture}: "
            f"{reason[0] if reason else type(error).__name__}"
        ) from error
    return read_outputs(SegmentationModel(network, weights["params"], weights["stats"], manifest))


def _network(architecture: Any, arguments: Any, path: Path) -> tuple[Network, tuple[Shapes, Shapes]]:
    """The network that a manifest describes, with the shapes of its parameters and statistics."""
    if not isinstance(architecture, str) or not isinstance(arguments, dict):
        raise ValueError(
            f"{path}: expected the name of an architecture and an object of its arguments, got "
            f"{reprlib.repr(architecture)} and {reprlib.repr(arguments)}"
        )
    try:
        network = Network.create(architecture, **arguments)
        return network, network.shapes()
    except Exception as error:  # an argument of another kind may fail anywhere on the way
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path}: no {architecture[:80]} can be made of the arguments {reprlib.repr(arguments)}: "
            f"{(reason[0] if reason else type(error).__name__)[:500]}"
        ) from error


def _alone() -> ocp.options.MultiprocessingOptions:
    """Reading is each process's own affair: joined by jax.distributed it must not wait for others, which may be dead."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a JSON manifest, got {error}") from error
    missing = {"format", "architecture", "arguments"} - set(manifest if isinstance(manifest, dict) else ())
    if missing:
        raise ValueError(f"{path}: the manifest lacks {', '.join(sorted(missing))}")
    if manifest["format"] != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {manifest['format']}; convert the model again")
    return manifest
