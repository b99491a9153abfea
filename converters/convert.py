"""One weight file to a `SegmentationModel`: read, recognise, check, and write down where it came from."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quam_jax.data.files import one_line
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.outputs import declare_outputs
from quam_jax.networks import NETWORKS, guess_architecture, infer_arguments

from .keras_names import LAYOUT, is_keras_1, rename_keras_1
from .mapping import check_derived, pack, shorten, split_derived, to_flax, torch_shapes
from .parts import Part, beginnings, choose_part, find_parts, left_out
from .readers import NoEntry, Weights, read_weights

NOT_CHECKED = {"kind": "none", "verdict": "not checked"}


def convert(
    path: str | Path,
    *,
    arch: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    part: str | None = None,
) -> SegmentationModel:
    """The model of a weight file, its architecture and arguments guessed where not given.

    The file may be .pth, .pt, .ckpt, .safetensors, .npz or .h5, with the names and axis orders of PyTorch, or
    an .h5 of Keras 1 (see `keras_names`).
    `arguments` are constructor arguments of the architecture; they win over those inferred from the shapes,
    and must fit. `part` names one of several state_dicts in the file, or what the names of one of several networks begin with;
    without it the only part that is a network is taken, and `notes` in the manifest say what stands beside it.
    `preprocessing` defaults to z-scores of as many channels as the network takes. The manifest
    says where the weights came from, and what the channels mean (see `quam_jax.models.outputs`): classes, or the logit of a
    foreground where there is one channel. Raises ValueError with one line on a file that cannot be read, an
    architecture that nothing fits, several networks of which any may be meant, arguments that contradict the shapes, and
    any mismatch.
    """
    path = Path(path)
    weights, prefix = _read(path, part)
    keras = is_keras_1(weights.tensors)
    if keras:
        try:
            weights = weights._replace(tensors=rename_keras_1(weights.tensors))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    model = assemble(path, weights, arch=arch, arguments=arguments, preprocessing=preprocessing, prefix=prefix)
    if keras:
        model.manifest["source"]["layout"] = LAYOUT
    try:
        return declare_outputs(model, names=class_names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path, part: str | None) -> tuple[Weights, str | None]:
    """The weights, and the prefix that chooses among their names where no state_dict is called so."""
    if part is None:
        return read_weights(path), None
    try:
        return read_weights(path, key=part), None
    except NoEntry:
        return read_weights(path), part


def assemble(
    path: Path,
    weights: Weights,
    *,
    arch: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    prefix: str | None = None,
) -> SegmentationModel:
    """The model of weights that are already read from `path`, those under a `prefix` where it is given; see `convert`."""
    everything = {
        **weights.tensors,
        **{alias: weights.tensors[name] for alias, name in weights.aliases.items()},
    }
    fit = functools.partial(_fit, path, arch=arch, arguments=arguments or {})
    try:
        part, notes = _choose(everything, weights, fit, arch=arch, prefix=prefix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    network, own, aliases, set_aside = fit(part.tensors, _inside(weights.aliases, part))
    params, stats = to_flax(network, own, where=str(path))
    if class_names is not None and len(class_names) != network.classes:
        raise ValueError(f"{path}: expected {network.classes} class names, got {len(class_names)}: {shorten(class_names)}")
    manifest = {
        "source": {
            "file": path.name,
            "sha256": sha256(path),
            "wrapper": weights.wrapper,
            "prefix": weights.prefix + part.prefix,
            "dtype": ", ".join(sorted({value.dtype.name for value in own.values()})),
        },
        "preprocessing": _as_json(
            {"channels": network.in_channels, **(preprocessing or {"normalise": "zscore"})},
            where="preprocessing",
        ),
        "class_names": list(class_names) if class_names is not None else None,
        "parity": dict(NOT_CHECKED),
        "dropped_aliases": aliases,
        "set_aside": {name: pack(value) for name, value in set_aside.items()},
        **({"notes": notes} if notes else {}),
    }
    return SegmentationModel(network, params, stats, manifest)


def _choose(
    everything: Mapping[str, np.ndarray], weights: Weights, fit: Callable[..., Any], *, arch: str | None, prefix: str | None
) -> tuple[Part, list[str]]:
    """The part that is the network, and what is told of the rest."""
    parts = find_parts(everything, arch=arch, prefix=prefix)
    part, fitting, notes = parts[0], [], []
    if len(parts) > 1:
        fitting = [p for p in parts if _fits(fit, p, weights.aliases)]
        if fitting:
            part, note = choose_part(fitting)
            notes.append(note)
    others = [p for p in fitting if p is not part]
    notes.append(left_out(part, others=others))
    if weights.others:
        notes.append(f"the file also holds {', '.join(weights.others)}; {weights.wrapper} is taken (another: --part)")
    return part, [note for note in notes if note]


def _fits(fit: Callable[..., Any], part: Part, aliases: Mapping[str, str]) -> bool:
    try:
        network, own, *_ = fit(part.tensors, _inside(aliases, part))
    except ValueError:
        return False
    return {name: tuple(value.shape) for name, value in own.items()} == torch_shapes(network)


def _inside(aliases: Mapping[str, str], part: Part) -> dict[str, str]:
    """The second names of the tensors of a part."""
    pairs = {a.removeprefix(part.prefix): n.removeprefix(part.prefix) for a, n in aliases.items() if a.startswith(part.prefix)}
    return {a: n for a, n in pairs.items() if a in part.tensors and n in part.tensors}


def sha256(path: str | Path) -> str:
    """The hash of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fit(
    path: Path,
    everything: Mapping[str, np.ndarray],
    tied: Mapping[str, str],
    *,
    arch: str | None,
    arguments: Mapping[str, Any],
) -> tuple[Network, dict[str, np.ndarray], dict[str, str], dict[str, np.ndarray]]:
    """The network, its own tensors, the aliases that were dropped, and the tensors it does not need."""
    shapes = {name: tuple(value.shape) for name, value in everything.items()}
    guessed = guess_architecture(shapes)
    chosen = arch or guessed
    if chosen is None:
        raise ValueError(
            f"{path}: none of {', '.join(NETWORKS)} fits its {len(shapes)} tensors ({shorten(shapes)}){_told(shapes)}"
        )
    if chosen not in NETWORKS:
        raise ValueError(f"architecture: expected one of {', '.join(NETWORKS)}, got {chosen!r}")
    foreign = f"{path}: expected weights of {chosen}, got those of {guessed}" if guessed not in (None, chosen) else None
    try:
        inferred = infer_arguments(chosen, shapes)
        network = Network.create(chosen, **{**inferred, **arguments})
        expected = torch_shapes(network)
    except Exception as error:  # foreign names and nonsense arguments fail in many ways; the edge needs one clear line
        raise ValueError(
            foreign or f"{path}: no {chosen} can be made of these weights and arguments {dict(arguments)}: {one_line(error)}"
        ) from error
    tensors, derived = split_derived(everything, chosen)
    names = NETWORKS[chosen].unused(tensors)
    unused = {name: value for name, value in tensors.items() if name in names}
    tensors = {name: value for name, value in tensors.items() if name not in names}
    own, aliases = _drop_tied(expected, tensors, tied)
    if {name: shapes[name] for name in own} != expected:
        contradictions = [
            f"{name}={value!r} (the weights say {inferred[name]!r})"
            for name, value in arguments.items()
            if name in inferred and _listed(inferred[name]) != _listed(value)
        ]
        if foreign or contradictions:
            raise ValueError(foreign or f"{path}: arguments contradict the weights: {', '.join(contradictions)}")
    check_derived(derived, chosen, where=str(path))
    return network, own, aliases, {**derived, **unused}


def _told(names: Mapping[str, Any]) -> str:
    """What more is known of names that no architecture has, and what can be done."""
    firsts = {name.split(".")[0] for name in names}
    groups = f", whose names begin with {beginnings(names)}" if len(firsts) > 1 and len(names) > 4 else ""
    if any("/" in name for name in names):
        return (
            "; its names are those of Keras: build the network again in PyTorch with these weights (kernels [h w in out] as "
            "[out in h w]) and export it with torch.export (.pt2)"
        )
    return f"{groups}; other networks are read as graphs: torch.export.save(torch.export.export(net.eval(), (x,)), 'net.pt2')"


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, list | tuple) else value


def _drop_tied(
    expected: Mapping[str, Any], tensors: Mapping[str, np.ndarray], tied: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Of the names of one tied tensor, those the network expects; the others are aliases of the first."""
    groups: dict[str, list[str]] = {}
    for alias, name in tied.items():
        groups.setdefault(name, [name]).append(alias)
    aliases = {}
    for names in groups.values():
        kept = [name for name in names if name in expected] or names[:1]
        aliases.update({name: kept[0] for name in names if name in tensors and name not in kept})
    return {name: value for name, value in tensors.items() if name not in aliases}, aliases


def _as_json(value: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(value)))
    except TypeError as error:
        raise ValueError(f"{where}: expected numbers, strings and lists, got {error}") from error
