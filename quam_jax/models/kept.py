"""Adversarial models that a run has kept, on disk: the weights that they have in place of the given network's.

`CASE_models.npz` holds them as `N/NAME`, member N and the dotted name of a weight, the masks that the members were asked for as
`wanted`, and as `model` the digest of the network whose weights they replace.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..core.network import named_leaves, with_leaves
from ..data.files import one_line
from ..data.maps import pack_arrays
from .description import model_digest
from .loading import load_model
from .model import SegmentationModel

SUFFIX = "_models.npz"


def write_kept_models(
    path: Path, model: SegmentationModel, weights: Sequence[Mapping[str, Float[np.ndarray, "..."]]], *, wanted: Sequence[str]
) -> None:
    """Write what each kept model has in place of weights of the given one; equal weights give equal bytes."""
    arrays = {f"{n}/{name}": np.asarray(value) for n, changed in enumerate(weights) for name, value in sorted(changed.items())}
    about = {"model": np.array(model_digest(model)), "wanted": np.array(list(wanted))}
    path.write_bytes(pack_arrays(**about, **arrays))


def read_kept_models(model: SegmentationModel | str | Path, path: str | Path) -> list[SegmentationModel]:
    """The adversarial models of a case that `quam-jax run --keep-models` has written.

    Args:
        model: The network of that run, or its path.
        path: `CASE_models.npz` in the folder of the run.

    Returns:
        A model a member, to predict with or to save: `manifest["adversarial"]` names its file, its number and the mask that it
        was asked for. They explain the fit data within the bound where the audit in `CASE.json` says `held`.

    Raises:
        ValueError: For a file that is none of kept models, and for another network than that of the run.
    """
    model = model if isinstance(model, SegmentationModel) else load_model(model)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged archive raises many kinds
        raise ValueError(f"{path}: expected the kept models of a case, got {one_line(error)}") from None
    if not {"model", "wanted"} <= set(arrays):
        raise ValueError(f"{path}: expected the kept models of a case ({SUFFIX}), got other arrays")
    if str(arrays.pop("model")) != model_digest(model):
        raise ValueError(f"{path}: expected the network of the run, got {model.network.architecture} with other weights")
    given = named_leaves(model.params)
    found = []
    for number, wanted in enumerate(arrays.pop("wanted").tolist()):
        own = {name.split("/", 1)[1]: value for name, value in arrays.items() if name.startswith(f"{number}/")}
        strange = [name for name, value in own.items() if name not in given or value.shape != given[name].shape]
        if strange or not own:
            raise ValueError(f"{path}: expected weights of {model.network.architecture}, got {strange[:1] or 'none'}")
        manifest = {**model.manifest, "adversarial": {"file": Path(path).name, "member": number, "wanted": wanted}}
        params = with_leaves(model.params, {name: jnp.asarray(value) for name, value in own.items()})
        found.append(SegmentationModel(model.network, params, model.stats, manifest))
    return found
