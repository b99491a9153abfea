"""An nnU-Net v2 folder (`plans.json`, `dataset.json`, `fold_*/checkpoint_final.pth`) to one model a fold.

The plans say everything about the network and about how an image is prepared, in two formats: since 2.4 an
`architecture` with its constructor arguments, before that `UNet_class_name` and a few numbers from which they
follow. All that inference needs (patch, spacing, normalisation with its intensity statistics, resampling,
mirroring, labels or regions) goes into the manifest under `nnunet`. Axes are array axes of the reader (z y x)
after `transpose_forward`, as in the plans.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quam_jax.data.files import one_line
from quam_jax.models.model import SegmentationModel

from .convert import assemble
from .mapping import shorten
from .nnunet_labels import describe_labels, read_channel_names
from .readers import read_weights

FINAL, BEST = "checkpoint_final.pth", "checkpoint_best.pth"
NORMALISATIONS = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
NETWORK_CLASSES = {"PlainConvUNet": "nnunet_plain", "ResidualEncoderUNet": "nnunet_residual"}


def read_nnunet(
    folder: str | Path,
    *,
    configuration: str | None = None,
    checkpoint: str | None = None,
    folds: Sequence[int | str] | None = None,
) -> list[SegmentationModel]:
    """The models of an nnU-Net folder, one a fold in the order of `folds`.

    Without `folds` all that hold the checkpoint are read; without `checkpoint` that is checkpoint_final.pth, or
    checkpoint_best.pth where no fold holds the former, which the manifest says among its `notes`. The configuration is
    the one that the checkpoint says it was trained with, or follows from the folder's name (`trainer__plans__configuration`),
    or from the plans where they have only one. As in nnU-Net the mirroring axes are those of the first fold. Raises
    ValueError on missing or damaged files, an unknown configuration or fold, a cascade, and networks other than the plain and
    the residual U-Net.
    """
    folder = Path(folder)
    plans, dataset = _read_json(folder / "plans.json"), _read_json(folder / "dataset.json")
    checkpoint, present, notes = _find_folds(folder, checkpoint)
    chosen = present if folds is None else [str(fold) for fold in folds]
    absent = [fold for fold in chosen if fold not in present]
    if absent:
        held = sorted(folder.glob(f"fold_{absent[0]}/*.pth"))
        hint = f"; give {held[0]} as file" if held else ""
        raise ValueError(f"{folder}: expected the folds {', '.join(chosen)} to hold {checkpoint}, got {', '.join(present)}{hint}")
    first = read_weights(folder / f"fold_{chosen[0]}" / checkpoint)
    try:
        name = _choose_configuration(folder, plans, configuration, first.metadata)
        settings = _resolve(plans, name, where=str(folder / "plans.json"))
        record = _describe(plans, dataset, settings, configuration=name, where=str(folder))
        arch, arguments = network_arguments(settings, where=str(folder / "plans.json"))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        lack = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise ValueError(
            f"{folder / 'plans.json'}: not as nnU-Net writes it: {lack}; copy it again from where nnU-Net trained"
        ) from error
    channels, labels = record["channel_names"], record["class_names"]
    arguments |= {"in_channels": len(channels), "n_classes": len(labels)}
    models: list[SegmentationModel] = []
    for fold in chosen:
        path = folder / f"fold_{fold}" / checkpoint
        weights = read_weights(path) if models else first
        if not models:
            record["mirror_axes"] = _mirror_axes(weights.metadata, len(record["patch_size"]), where=str(path))
        model = assemble(
            path,
            weights,
            arch=arch,
            arguments=arguments,
            preprocessing=_preprocessing(record["normalisation"]),
            class_names=labels,
        )
        model.manifest["nnunet"] = {**record, "fold": fold, "trainer": weights.metadata.get("trainer_name")}
        model.manifest["notes"] = notes
        models.append(model)
    return models


def _find_folds(folder: Path, checkpoint: str | None) -> tuple[str, list[str], list[str]]:
    """The checkpoint that is read, the folds that hold it, and notes; ValueError, naming what there is, where none does."""
    wanted = [checkpoint] if checkpoint is not None else [FINAL, BEST]
    present = {name: list_folds(folder, checkpoint=name) for name in wanted}
    chosen = next((name for name in wanted if present[name]), None)
    if chosen is None:
        others = sorted(folder.glob("fold_*/*.pth"))
        hint = (
            f"give one of its checkpoints as file, such as {others[0]}"
            if others
            else "copy fold_0 and others, with their checkpoints, from where nnU-Net trained"
        )
        raise ValueError(f"{folder}: expected folders fold_0, fold_1, ... that hold {' or '.join(wanted)}, got none; {hint}")
    if chosen == wanted[0]:
        best = [fold for fold in list_folds(folder, checkpoint=BEST) if fold not in present[chosen]]
        left = f"fold {', '.join(best)} holds {BEST} without {FINAL} and is left out, as nnU-Net does"
        return chosen, present[chosen], [left] if best and checkpoint is None else []
    return chosen, present[chosen], [f"no fold holds {FINAL}; {BEST} is taken, of the epoch that did best in validation"]


def list_folds(folder: str | Path, *, checkpoint: str | None = None) -> list[str]:
    """The folds of an nnU-Net folder that hold a checkpoint (the final ones, else the best ones), numbers first."""
    if checkpoint is None:
        return list_folds(folder, checkpoint=FINAL) or list_folds(folder, checkpoint=BEST)
    found = [path.parent.name.removeprefix("fold_") for path in Path(folder).glob(f"fold_*/{checkpoint}")]
    return sorted(found, key=lambda fold: (not fold.isdigit(), int(fold) if fold.isdigit() else 0, fold))


def network_arguments(settings: Mapping[str, Any], *, where: str) -> tuple[str, dict[str, Any]]:
    """The architecture of a configuration and its constructor arguments, without channels and classes."""
    rank = len(settings["patch_size"])
    if "architecture" in settings:
        kind = str(settings["architecture"]["network_class_name"]).rsplit(".", 1)[-1]
        given = settings["architecture"]["arch_kwargs"]
    else:
        kind = str(settings["UNet_class_name"])
        stages = range(len(settings["n_conv_per_stage_encoder"]))
        given = {
            "features_per_stage": [
                min(settings["UNet_base_num_features"] * 2**i, settings["unet_max_num_features"]) for i in stages
            ],
            "kernel_sizes": settings["conv_kernel_sizes"],
            "strides": settings["pool_op_kernel_sizes"],
            "n_conv_per_stage": settings["n_conv_per_stage_encoder"],
            "n_blocks_per_stage": settings["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op_kwargs": {"affine": True},
        }
    if kind not in NETWORK_CLASSES:
        raise ValueError(
            f"{where}: expected a network among {', '.join(NETWORK_CLASSES)}, got {kind}; other networks come as a graph of "
            "torch.export (quam-jax convert NET.pt2)"
        )
    _check_layers(given, rank, where=where)
    stages = range(len(given["features_per_stage"]))
    depth = "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"
    arguments = {
        "features_per_stage": list(given["features_per_stage"]),
        "kernel_sizes": [_each(given["kernel_sizes"], i, rank) for i in stages],
        "strides": [_each(given["strides"], i, rank) for i in stages],
        depth: _per_stage(given[depth], len(stages)),
        "n_conv_per_stage_decoder": _per_stage(given["n_conv_per_stage_decoder"], len(stages) - 1),
        "conv_bias": bool(given.get("conv_bias", False)),
        "rank": rank,
    }
    return NETWORK_CLASSES[kind], arguments


def _check_layers(given: Mapping[str, Any], rank: int, *, where: str) -> None:
    """The layers must be those of nnU-Net's default planners, which our networks have."""
    kinds = {"conv_op": f"Conv{rank}d", "norm_op": f"InstanceNorm{rank}d", "nonlin": "LeakyReLU"}
    norm, activation = given.get("norm_op_kwargs") or {}, given.get("nonlin_kwargs") or {}
    pairs: dict[str, tuple[Any, Any]] = {
        key: (str(given.get(key) or kind).rsplit(".", 1)[-1], kind) for key, kind in kinds.items()
    }
    pairs |= {
        "eps": (norm.get("eps", 1e-5), 1e-5),
        "affine": (norm.get("affine", False), True),
        "negative_slope": (activation.get("negative_slope", 0.01), 0.01),
        "nonlin_first": (given.get("nonlin_first", False), False),
    }
    for key, (got, value) in pairs.items():
        if got != value:
            raise ValueError(f"{where}: expected {key} {value}, got {got}")


def _each(value: Any, stage: int, rank: int) -> list[int]:
    """The kernel or stride of a stage, an axis each; plans may give one number for all."""
    own = value[stage] if isinstance(value, list | tuple) else value
    return list(own) if isinstance(own, list | tuple) else [own] * rank


def _per_stage(value: Any, stages: int) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value] * stages


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ValueError(
            f"{path}: expected the file of an nnU-Net folder, got nothing at this path; nnU-Net writes plans.json and "
            "dataset.json beside fold_0 when it trains: copy them from there"
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got {one_line(error)}; copy it again from where nnU-Net trained") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _choose_configuration(folder: Path, plans: Mapping[str, Any], asked: str | None, metadata: Mapping[str, Any]) -> str:
    known, began = list(plans["configurations"]), metadata.get("init_args")
    trained = began.get("configuration") if isinstance(began, Mapping) else None
    said = (trained, folder.resolve().name.split("__")[-1], known[0] if len(known) == 1 else None)
    chosen = asked or next((name for name in said if name in known), None)
    if chosen is None or chosen not in known:
        raise ValueError(
            f"{folder}: expected a configuration among {', '.join(known)}, got {chosen or 'none'}; name the folder "
            "TRAINER__PLANS__CONFIGURATION as nnU-Net does, or convert it with --configuration"
        )
    return chosen


def _resolve(plans: Mapping[str, Any], name: str, *, where: str) -> dict[str, Any]:
    """A configuration with what it inherits."""
    chain: list[str] = []
    settings: dict[str, Any] = {}
    while name is not None:
        if name in chain or name not in plans["configurations"]:
            raise ValueError(f"{where}: the configurations {', '.join([*chain, name])} do not inherit from one that exists")
        chain.append(name)
        settings = {**plans["configurations"][name], **settings}
        name = plans["configurations"][name].get("inherits_from")
    if settings.get("previous_stage"):
        raise ValueError(
            f"{where}: configuration {chain[0]} is the second stage of a cascade, which needs the output of "
            f"{settings['previous_stage']}; expected a configuration that stands alone"
        )
    return settings


def _describe(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    configuration: str,
    where: str,
) -> dict[str, Any]:
    names = read_channel_names(dataset, where=f"{where}: dataset.json")
    schemes, masks = settings["normalization_schemes"], settings["use_mask_for_norm"]
    unknown = [scheme for scheme in schemes if scheme not in NORMALISATIONS]
    if unknown or not len(schemes) == len(masks) == len(names):
        raise ValueError(
            f"{where}: expected one normalisation among {', '.join(NORMALISATIONS)} for each of the "
            f"{len(names)} channels, got {shorten(schemes)}"
        )
    intensity = plans.get(
        "foreground_intensity_properties_per_channel",
        plans.get("foreground_intensity_properties_by_modality", {}),
    )
    resampling = {
        what: {
            "function": settings.get(f"resampling_fn_{what}"),
            **settings.get(f"resampling_fn_{what}_kwargs", {}),
        }
        for what in ("data", "probabilities")
    }
    return {
        "dataset": plans.get("dataset_name"),
        "plans": plans.get("plans_name"),
        "configuration": configuration,
        "patch_size": list(settings["patch_size"]),
        "spacing": list(settings["spacing"]),
        "transpose_forward": list(plans["transpose_forward"]),
        "transpose_backward": list(plans["transpose_backward"]),
        "channel_names": names,
        "normalisation": [
            {"scheme": scheme, "use_mask": bool(mask), "intensity": intensity.get(str(i))}
            for i, (scheme, mask) in enumerate(zip(schemes, masks, strict=True))
        ],
        "resampling": resampling,
        "file_ending": dataset.get("file_ending"),
        "reader": plans.get("image_reader_writer"),
        **describe_labels(dataset, where=f"{where}: dataset.json"),
    }


def _preprocessing(normalisation: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The normalisation in the words of our own preprocessing; `nnunet` where only the plan has them."""
    words: dict[str, dict[str, Any]] = {
        "ZScoreNormalization": {"normalise": "zscore"},
        "NoNormalization": {"normalise": "none"},
        "RescaleTo01Normalization": {"normalise": "minmax"},
        "RGBTo01Normalization": {"normalise": "none", "scale": 255.0},
    }
    kinds = {(channel["scheme"], channel["use_mask"]) for channel in normalisation}
    (scheme, mask), *others = kinds
    return {"normalise": "nnunet"} if others or mask or scheme not in words else dict(words[scheme])


def _mirror_axes(metadata: Mapping[str, Any], rank: int, *, where: str) -> list[int]:
    axes = metadata.get("inference_allowed_mirroring_axes")
    if axes is None:
        return []
    if not all(isinstance(axis, int) and 0 <= axis < rank for axis in axes):
        raise ValueError(f"{where}: expected mirroring axes below {rank}, got {axes}")
    return list(axes)
