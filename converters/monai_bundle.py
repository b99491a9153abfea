"""A bundle of MONAI: its network, built by MONAI, with its weights and with what its settings say of images and channels.

A bundle describes everything in a language that may run any Python. Nothing of it is run here: the network must be one of
`monai.networks.nets` with plain arguments, and of the transforms those of intensities are understood. What else a bundle does to
an image (orientation, spacing, sizes) is told and not repeated.
"""

import json
import re
from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from quam_jax.data.preprocess import Preprocessing
from quam_jax.models.model import SegmentationModel

from .convert import sha256
from .exported import from_torch
from .exported.capture import import_torch, one_line
from .readers import read_weights

CONFIGS = ("inference", "evaluate", "train")  # the first one there is read
NETS = "monai.networks.nets"
BY_HAND = "; build the network in Python (monai.bundle.ConfigParser) and give it to quam_jax.from_torch"
SIDE = 64  # of the example along sides that the bundle leaves open
PLAIN = ("LoadImage", "EnsureChannelFirst", "AddChannel", "AsChannelFirst", "EnsureType", "ToTensor", "CastToType", "SelectItems")


def read_bundle(path: Path) -> SegmentationModel:
    """The model of a bundle's folder (configs/, models/model.pt).

    ValueError, with one line, without MONAI or PyTorch, for a network that is not MONAI's or whose arguments are computed, for
    weights that do not fit it, and for what `from_torch` refuses.
    """
    metadata = _mapping(_read(path / "configs" / "metadata.json"))
    config_path = _config(path)
    config = _mapping(_read(config_path))
    if "network_def" not in config:
        raise ValueError(f"{config_path}: expected the network under network_def, got none{BY_HAND}")
    torch = import_torch()
    with one_line(str(path)):
        network = _network(_resolved(config["network_def"], config, config_path), config_path)
        weights = path / "models" / "model.pt"
        _load(torch, network, weights)
        data = _mapping(metadata.get("network_data_format"))
        image, prediction = (_first(data.get(name)) for name in ("inputs", "outputs"))
        transforms = _transforms(config.get("preprocessing"), config, config_path)
        preparation, said = prepare_of(transforms, channels=_count(image, network))
        example = torch.zeros((1, preparation.channels, *_sides(image, config)))
        model = from_torch(
            network.eval(),
            example + torch.linspace(0, 1, example.numel()).reshape(example.shape),
            preprocessing=preparation.to_dict(),
            class_names=_names(prediction),
            outputs=_meaning(_transforms(config.get("postprocessing"), config, config_path)),
        )
    name = metadata.get("name") or path.name
    model.manifest["source"] |= {"file": "models/model.pt", "sha256": sha256(weights), "bundle": name}
    model.manifest["notes"] = [*model.manifest["notes"], *said]
    return model


def prepare_of(transforms: list[dict[str, Any]], *, channels: int) -> tuple[Preprocessing, list[str]]:
    """What transforms make of intensities, and what they do beside it, in words."""
    settings: dict[str, Any] = {}
    others: list[str] = []
    unclear: list[str] = []
    for transform in transforms:
        name = _short(transform)
        if name in PLAIN:
            continue
        understood = _intensities(name, transform, channels)
        if understood is None:
            (unclear if "Intensit" in name or "Normalize" in name else others).append(_in_words(name, transform))
        elif settings:
            unclear.append(_in_words(name, transform))  # a second one, on what the first one made
        else:
            settings = understood
    notes = []
    if not settings and not unclear:
        notes.append("the bundle prepares no intensities that are understood here: they are taken as they are (--preprocessing)")
    if unclear:
        notes.append(f"the bundle prepares intensities by {', '.join(unclear)}, which is not repeated: give --preprocessing")
    if others:
        notes.append(f"the bundle also applies {', '.join(others)}, which is not repeated: give images that went through it")
    return Preprocessing.from_dict({"normalise": "none", "channels": channels, **settings}), notes


def _intensities(name: str, given: Mapping[str, Any], channels: int) -> dict[str, Any] | None:
    """The settings of Preprocessing that do the same as a transform, None where none do."""
    if name == "ScaleIntensityRange":
        ends = [given.get(key) for key in ("a_min", "a_max", "b_min", "b_max")]
        if not _numbers(*ends):
            return None
        low, high, below, above = map(float, ends)  # type: ignore[arg-type]
        if not high > low or not above > below:
            return None
        step = (high - low) / (above - below)
        window = {"window": [low, high]} if given.get("clip") else {}
        return {"normalise": "fixed", "mean": [low - below * step] * channels, "std": [step] * channels, **window}
    if name == "NormalizeIntensity" and not given.get("nonzero"):
        shift, width = given.get("subtrahend"), given.get("divisor")
        if shift is None and width is None:
            return {"normalise": "zscore"} if given.get("channel_wise") or channels == 1 else None
        if _numbers(shift, width):
            return {"normalise": "fixed", "mean": [shift] * channels, "std": [width] * channels}
        lists = isinstance(shift, list) and isinstance(width, list) and _numbers(*shift, *width)
        if lists and given.get("channel_wise"):
            return {"normalise": "fixed", "mean": shift, "std": width}
    if name == "ScaleIntensity" and (given.get("channel_wise") or channels == 1):
        least, most = given.get("minv", 0.0) or 0.0, given.get("maxv", 1.0) or 0.0
        unit = _numbers(least, most) and isclose(least, 0.0) and isclose(most, 1.0)
        return {"normalise": "minmax"} if unit and given.get("factor") is None else None
    return None


def _numbers(*values: Any) -> bool:
    """Whether all are plain numbers, and none a text that a bundle would compute."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON or YAML, got what cannot be read ({_line(error)})") from error


def _config(path: Path) -> Path:
    for name in CONFIGS:
        for ending in (".json", ".yaml", ".yml"):
            if (found := path / "configs" / (name + ending)).is_file():
                return found
    raise ValueError(
        f"{path}: a bundle describes its network in configs/inference.json (or .yaml), evaluate or train; expected one"
    )


def _resolved(value: Any, config: Mapping[str, Any], where: Path, depth: int = 0) -> Any:
    """A value with the plain values that it refers to; ValueError for one that would have to be computed."""
    if depth > 20:
        raise ValueError(f"{where}: its references refer to each other")
    if isinstance(value, Mapping):
        return {key: _resolved(one, config, where, depth) for key, one in value.items()}
    if isinstance(value, list):
        return [_resolved(one, config, where, depth) for one in value]
    if isinstance(value, str) and value.startswith(("$", "%")):
        raise ValueError(f"{where}: {value!r} would have to be run; expected plain values{BY_HAND}")
    if isinstance(value, str) and value.startswith("@"):
        found: Any = config
        for key in re.split(r"::|#", value[1:]):
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ValueError(f"{where}: {value!r} refers to nothing") from None
        return _resolved(found, config, where, depth + 1)
    return value


def _network(described: Any, where: Path) -> Any:
    """The network, built by MONAI."""
    target = str(_mapping(described).get("_target_", ""))
    arguments = {key: value for key, value in _mapping(described).items() if not (key.startswith("_") and key.endswith("_"))}
    try:
        from monai.networks import nets
    except ImportError:
        raise ValueError(
            f"{where}: {target or 'the network'} is built by MONAI; expected it to be installed (pip install monai)"
        ) from None
    package, _, name = target.rpartition(".")
    kind = getattr(nets, name, None) if package == "" or package.startswith(NETS) else None
    if not isinstance(kind, type):
        raise ValueError(f"{where}: expected a network of {NETS}, got {target!r}{BY_HAND}")
    try:
        return kind(**arguments)
    except Exception as error:  # whatever MONAI says of its arguments
        raise ValueError(f"{where}: MONAI does not build {name}: {_line(error)}") from error


def _load(torch: Any, network: Any, path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: expected the weights of the bundle, got nothing there")
    found = read_weights(path)
    arrays = found.tensors | {dropped: found.tensors[kept] for dropped, kept in found.aliases.items()}
    bare = {name: torch.tensor(array.astype(np.float32) if array.dtype.kind == "V" else array) for name, array in arrays.items()}
    wanted = network.state_dict().keys()
    cut = [
        f"{part}." for part in found.prefix.split(".") if part
    ]  # some of it may be the network's: names of a UNet begin with model.
    states = [{"".join(cut[i:]) + name: tensor for name, tensor in bare.items()} for i in range(len(cut) + 1)]
    try:
        network.load_state_dict(max(states, key=lambda state: len(state.keys() & wanted)))
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: its weights are not those of network_def: {_line(error)}") from error


def _transforms(value: Any, config: Mapping[str, Any], where: Path) -> list[dict[str, Any]]:
    """The transforms of a pipeline, those that are computed left out."""
    if isinstance(value, str) and value.startswith("@"):
        value = _resolved(value, config, where)
    listed = _mapping(value).get("transforms", value if isinstance(value, list) else [])
    if isinstance(listed, str) and listed.startswith("@"):
        listed = _resolved(listed, config, where)
    found = []
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, str) and one.startswith("@"):
            one = _resolved(one, config, where)
        if isinstance(one, Mapping) and one.get("_target_") and one.get("_disabled_") not in (True, "true"):
            found.append({k: _or_text(v, config, where) for k, v in one.items()})
    return found


def _or_text(value: Any, config: Mapping[str, Any], where: Path) -> Any:
    """A plain value, or the text of one that is computed."""
    try:
        return _resolved(value, config, where)
    except ValueError:
        return str(value)


def _short(transform: Mapping[str, Any]) -> str:
    """The name of a transform without its package and the d of dictionaries."""
    name = str(transform["_target_"]).rpartition(".")[2]
    return re.sub(r"(?<=[a-z])(?<!Pa)(d|D|Dict)$", "", name)  # Pad, BorderPad and SpatialPad end in a d of their own


def _in_words(name: str, transform: Mapping[str, Any]) -> str:
    told = {k: v for k, v in transform.items() if k not in ("keys", "allow_missing_keys", "image_only") and not k.startswith("_")}
    return f"{name}({', '.join(f'{k}={v}' for k, v in told.items())})"


def _meaning(transforms: list[dict[str, Any]]) -> str | None:
    for transform in transforms:
        for meaning in ("softmax", "sigmoid"):
            if _short(transform) == "Activations" and transform.get(meaning) is True:
                return meaning
    return None


def _names(prediction: Mapping[str, Any]) -> list[str] | None:
    """Names of the output channels, where the bundle has one for each."""
    told, count = _mapping(prediction.get("channel_def")), prediction.get("num_channels")
    names = [str(told[key]) for key in sorted(told, key=lambda k: int(k) if str(k).isdecimal() else 0)]
    return names if len(names) == count and len(set(names)) == count else None


def _count(image: Mapping[str, Any], network: Any) -> int:
    count = image.get("num_channels", getattr(network, "in_channels", 1))
    return count if isinstance(count, int) and count > 0 else 1


def _sides(image: Mapping[str, Any], config: Mapping[str, Any]) -> list[int]:
    """Sides of an image that the network takes: as numbers tell them, else as multiples or powers of the numbers in them."""
    told = image.get("spatial_shape")
    if not isinstance(told, list) or len(told) not in (2, 3):
        rank = _mapping(config.get("network_def")).get("spatial_dims", 3)
        return [SIDE] * (rank if rank in (2, 3) else 3)
    return [_side(one) for one in told]


def _side(told: Any) -> int:
    if isinstance(told, int) and told > 0:
        return told
    multiple = re.fullmatch(r"(\d+)\s*\*\s*[a-z]", str(told).strip())
    if multiple:
        step = int(multiple[1])
        return step * max(1, -(-SIDE // step))
    return SIDE


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _first(value: Any) -> dict[str, Any]:
    return next((_mapping(one) for one in _mapping(value).values()), {})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
