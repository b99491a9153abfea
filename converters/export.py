"""A model back to a PyTorch weight file, with the names, axis orders and derived buffers of the original."""

from pathlib import Path

import numpy as np

from quam_jax.models.model import SegmentationModel

from .mapping import to_torch, unpack
from .writers import write_safetensors, write_state_dict

WRITERS = {".pth": write_state_dict, ".pt": write_state_dict, ".safetensors": write_safetensors}


def export_weights(model: SegmentationModel, path: str | Path) -> None:
    """Write the weights as a .pth, .pt or .safetensors file that loads into the original PyTorch network.

    Names are those of the file that was converted; what encloses them in a checkpoint is not written. Weights
    are float32; what conversion set aside (derived buffers, unused heads) and the second names of tied
    tensors come back as they were. Raises ValueError on another file ending.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ValueError(f"{path}: expected a file ending in {', '.join(WRITERS)}, got {path.suffix or 'none'!r}")
    WRITERS[path.suffix](path, state_dict(model))


def state_dict(model: SegmentationModel) -> dict[str, np.ndarray]:
    """The tensors of the original state_dict, in PyTorch's axis order."""
    tensors = to_torch(model.network, model.params, model.stats)
    tensors |= {name: unpack(value) for name, value in model.manifest.get("set_aside", {}).items()}
    aliases = model.manifest.get("dropped_aliases", {})
    tensors |= {alias: tensors[name] for alias, name in aliases.items()}
    prefix = model.manifest.get("source", {}).get("prefix", "")
    return {prefix + name: value for name, value in tensors.items()}
