"""Whether a converted network gives the numbers of the original: against stored logits, or against a live
PyTorch module.

The figure that goes into a manifest is the largest difference between logits, relative to the range of the
original logits. The live check also compares every submodule that has the same path on both sides, so that a
wrong layer is named. Nothing here imports PyTorch until a live module is given.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float
from scipy.special import expit, softmax

from quam_jax.core.network import Mode
from quam_jax.models.model import SegmentationModel
from quam_jax.networks import NETWORKS

TOLERANCE = 1e-4


def check_parity(model: SegmentationModel, *, reference: str | Path | Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Compare with stored logits, of a .npz file or a mapping.

    The arrays are `input` `[b i *space]` and `logits` `[b c *space]`. The result has kind, what was compared, max_abs,
    relative (to the range of the stored values) and verdict, `equal` within 1e-4 or `different`. Values that are
    probabilities are compared with the softmax, or the sigmoids, of our logits. Raises ValueError on a file without
    these arrays, on wrong shapes and on values that are not finite.
    """
    where = "reference" if isinstance(reference, Mapping) else str(reference)
    arrays = reference if isinstance(reference, Mapping) else _load(Path(reference))
    missing = {"input", "logits"} - set(arrays)
    if missing:
        raise ValueError(f"{where}: expected the arrays input and logits, got {', '.join(sorted(arrays)) or 'none'}")
    images, logits = (np.asarray(arrays[name]) for name in ("input", "logits"))
    ours = our_logits(model, images, where=where)
    kind = "stored logits" if isinstance(reference, Mapping) else f"stored logits of {Path(reference).name}"
    return {"kind": kind, **_difference(ours, logits, outputs=model.manifest.get("outputs", {}), where=where)}


def live_parity(model: SegmentationModel, torch_module: Any, example: Float[np.ndarray, "b i *space"]) -> dict[str, Any]:
    """Compare with a PyTorch module in eval mode on an example: the logits, and submodules of equal path.

    The result is that of `check_parity` with `layers`, the number of submodules compared, and path, max_abs
    and relative difference of the `worst_layer` and, where one is off by more than 1e-4 of its range, of the
    `first_layer` that is, in the order in which PyTorch finishes them. The module's mode is restored. Raises
    ValueError as `check_parity` does, and where the module returns no tensor.
    """
    ours, own = _our_activations(model, example)
    theirs, logits = _torch_activations(torch_module, example)
    outputs = model.manifest.get("outputs", {})
    result = {"kind": "live PyTorch", **_difference(own, logits, outputs=outputs, where="PyTorch module")}
    layers = layer_differences(ours, theirs)
    result["layers"] = len(layers)
    found = {
        "worst_layer": max(layers, key=lambda name: layers[name][1], default=None),
        "first_layer": next((name for name, (_, relative) in layers.items() if relative > TOLERANCE), None),
    }
    for key, path in found.items():
        if path is not None:
            result[key] = {"path": path, "max_abs": layers[path][0], "relative": layers[path][1]}
    return result


def record_parity(model: SegmentationModel, parity: Mapping[str, Any]) -> SegmentationModel:
    """The model with a parity figure in its manifest."""
    return dataclasses.replace(model, manifest={**model.manifest, "parity": dict(parity)})


def layer_differences(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Largest absolute and relative difference of each activation that both sides have, as `theirs` go."""
    differences = {}
    for name, value in theirs.items():
        candidates = [] if name not in ours else [v for v in _channels_last(value) if v.shape == ours[name].shape]
        if candidates:
            # where the axes can be read in two ways the right one is the closer one
            absolute = min(float(np.max(np.abs(ours[name] - v), initial=0.0)) for v in candidates)
            differences[name] = (absolute, _relative(absolute, value))
    return differences


def compare(
    ours: np.ndarray, theirs: np.ndarray, *, inside: str = "", tolerance: float = TOLERANCE, where: str
) -> dict[str, Any]:
    """The difference of logits, ours `[b *space k]` and theirs `[b k *space]`; with an activation `inside` that of its values."""
    theirs = _checked(ours, theirs, where=where)
    if inside:
        return _figures("probabilities", _activate(ours, inside), _activate(theirs, inside), tolerance)
    return _figures("logits", ours, theirs, tolerance)


def _difference(ours: np.ndarray, theirs: np.ndarray, *, outputs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`compare` with stored values that may be logits or probabilities: what they look like, the nearer where both may be."""
    theirs = _checked(ours, theirs, where=where)
    kind = outputs.get("inside") or outputs.get("meaning", "softmax")
    within = bool(theirs.min() >= 0 and theirs.max() <= 1)
    sums = theirs.shape[-1] > 1 and bool(np.abs(theirs.sum(-1) - 1).max() < 1e-5)
    found = []
    if within and (kind == "sigmoid" or sums):
        found.append(_figures("probabilities", _activate(ours, kind), theirs))
    if not found or (kind == "sigmoid" and outputs.get("inside") != "sigmoid"):
        found.append(_figures("logits", ours, theirs))
    return min(found, key=lambda figures: figures["relative"])


def _checked(ours: np.ndarray, values: np.ndarray, *, where: str) -> np.ndarray:
    """The values of a reference with their channels last; ValueError where they cannot be compared with ours."""
    theirs = np.moveaxis(np.asarray(values, np.float64), 1, -1)
    if theirs.shape != ours.shape:
        raise ValueError(f"{where}: expected logits {_channels_first(ours.shape)}, got {tuple(values.shape)}")
    for name, logits in (("reference", theirs), ("converted", ours)):
        if not np.isfinite(logits).all():
            raise ValueError(f"{where}: the {name} logits are not finite; there is no parity figure")
    return theirs


def _activate(logits: np.ndarray, kind: str) -> np.ndarray:
    return np.asarray(expit(logits) if kind == "sigmoid" else softmax(logits, -1))


def _figures(compared: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float = TOLERANCE) -> dict[str, Any]:
    absolute = float(np.max(np.abs(ours - theirs)))
    relative = _relative(absolute, theirs)
    verdict = "equal" if relative <= tolerance else "different"
    return {"compared": compared, "max_abs": absolute, "relative": relative, "verdict": verdict}


def _relative(absolute: float, values: np.ndarray) -> float:
    """A difference over the range of the values, over their size where they are all the same."""
    if absolute == 0.0:
        return 0.0
    extent = float(np.max(values) - np.min(values)) or float(np.max(np.abs(values)))
    return absolute / max(extent, float(np.finfo(np.float32).tiny))


def our_logits(
    model: SegmentationModel, images: Float[np.ndarray, "b i *space"], *, where: str
) -> Float[np.ndarray, "b *space k"]:
    """What the converted network's own channels say; ValueError for images that are not its."""
    rank, channels = model.network.rank, model.network.in_channels
    if images.ndim != rank + 2 or images.shape[1] != channels:
        raise ValueError(
            f"{where}: expected an input of {rank + 2} axes with {channels} channels on the second, "
            f"got shape {tuple(images.shape)}"
        )
    with jax.default_matmul_precision("highest"):
        own = dataclasses.replace(model, network=dataclasses.replace(model.network, sums=None))
        return np.asarray(own(jnp.asarray(np.moveaxis(images, 1, -1))), np.float64)


def _our_activations(model: SegmentationModel, example: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    logits = our_logits(model, np.asarray(example), where="example")
    multiple = np.broadcast_to(model.network.size_multiple, model.network.rank)
    if np.any(np.asarray(example.shape[2:]) % multiple):
        raise ValueError(
            f"example: expected sides that are multiples of {', '.join(map(str, multiple))}, got {tuple(example.shape[2:])}"
        )
    found: dict[str, np.ndarray] = {}
    with (
        jax.default_matmul_precision("highest"),
        _recorded_calls(NETWORKS[model.network.architecture].cls, found),
    ):
        images = jnp.asarray(np.moveaxis(example, 1, -1), jnp.float32)
        model.network.apply(model.params, model.stats, images, Mode(folded=False))
    return found, logits


@contextlib.contextmanager
def _recorded_calls(network: type[nnx.Module], found: dict[str, np.ndarray]) -> Iterator[None]:
    """Note what every submodule of a network returns, by wrapping the calls of the classes for a while."""
    paths: dict[int, str] = {}
    originals: dict[Any, Any] = {}

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = call(self, *args, **kwargs)
            if id(self) in paths and isinstance(result, jax.Array) and not isinstance(result, jax.core.Tracer):
                found[paths[id(self)]] = np.asarray(result, np.float64)
            return result

        return noted

    def entering(call: Callable[..., Any]) -> Callable[..., Any]:
        def entered(self: Any, *args: Any, **kwargs: Any) -> Any:
            # only now is the network there, with its modules
            for path, module in nnx.iter_modules(self):
                paths[id(module)] = ".".join(map(str, path))
                if callable(module) and type(module) not in originals:
                    wrap(type(module), noting)
            return call(self, *args, **kwargs)

        return entered

    def wrap(cls: Any, how: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        originals[cls] = cls.__dict__.get("__call__")
        cls.__call__ = how(cls.__call__)

    wrap(network, entering)
    try:
        yield
    finally:
        for cls, original in originals.items():
            if original is None:
                del cls.__call__
            else:
                cls.__call__ = original


def _torch_activations(module: Any, example: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    import torch

    found: dict[str, np.ndarray] = {}

    def hook(name: str) -> Callable[..., None]:
        def note(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                # copied at once: an in-place activation may follow
                found[name] = output.detach().cpu().double().numpy().copy()

        return note

    training = {name: child.training for name, child in module.named_modules()}
    handles = [child.register_forward_hook(hook(name)) for name, child in module.named_modules()]
    parameter = next(iter(module.parameters()), torch.zeros(()))
    try:
        module.eval()
        with torch.no_grad():
            output = module(torch.as_tensor(np.asarray(example, np.float32)).to(parameter.device))
    finally:
        for handle in handles:
            handle.remove()
        for name, child in module.named_modules():
            child.training = training[name]
    if not isinstance(output, torch.Tensor):
        raise ValueError(f"PyTorch module: expected a tensor of logits, got {type(output).__name__}")
    return found, found.pop("")


def _channels_last(value: np.ndarray) -> list[np.ndarray]:
    """A PyTorch activation with its channels last, and as it is (tokens have them last already)."""
    return [value] if value.ndim < 3 else [np.moveaxis(value, 1, -1), value]


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[-1], *shape[1:-1])


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"{path}: expected a .npz file with the arrays input and logits, got nothing at this path")
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not hasattr(stored, "files"):
                raise ValueError("one array instead of an archive")
            return {name: stored[name] for name in stored.files if name in ("input", "logits")}
    except Exception as error:  # numpy and zipfile raise many kinds for a file that is no archive
        raise ValueError(f"{path}: expected a .npz file with the arrays input and logits, got {error}") from error
