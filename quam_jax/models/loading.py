"""Any model that a person points at: a model folder, a PyTorch or Keras weight file, a torch.export graph, an nnU-Net folder or a
bundle of MONAI.

A model folder is restored directly. The others go through `converters`, imported when the first of them is
met, so that the package itself knows nothing of other frameworks.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .folder import is_model_folder, restore_model
from .model import Network, SegmentationModel
from .wrap import wrap


def load_model(
    path: Any,
    arch: str | None = None,
    *,
    fold: int | str | None = None,
    configuration: str | None = None,
    part: str | None = None,
    **arguments: Any,
) -> SegmentationModel:
    """The model at a path; `arch` and `arguments` name its architecture and constructor arguments.

    For a model folder they are checked against its manifest, for a weight file they are guessed when left
    out. `fold` and `configuration` choose among the models of an nnU-Net folder, `part` among the networks in a weight
    file: a key of the file, or what their names begin with. Raises ValueError with one line on a missing path, on
    something that is no model, and on a checkpoint of another architecture.

    A network in memory is taken as well: a PyTorch module or exported program as by `from_torch`, anything else as by `wrap`,
    with `example` and their other arguments.
    """
    if not isinstance(path, str | os.PathLike):
        if arch is not None or fold is not None or configuration is not None or part is not None:
            raise ValueError("load_model: arch, fold, configuration and part are of files; expected none for a network in memory")
        return _in_memory(path, **arguments)
    path, own = _whole_and_fold(Path(path))
    fold = own if fold is None else fold
    if not path.exists():
        raise ValueError(f"{path}: expected a model folder or a weight file, got nothing at this path")
    if _is_nnunet(path):
        if arch is not None or arguments:
            raise ValueError(
                f"{path}: the plans of nnU-Net name the architecture; expected neither arch nor arguments, "
                f"got {', '.join(['arch'] * (arch is not None) + sorted(arguments))}"
            )
        _check_part(path, part)
        return _load_nnunet(path, fold=fold, configuration=configuration)
    if _is_bundle(path):
        if arch is not None or arguments:
            raise ValueError(f"{path}: a bundle describes its network; expected neither arch nor arguments")
        from converters.monai_bundle import read_bundle

        _check_part(path, part)
        return read_bundle(path)
    if fold is not None or configuration is not None:
        raise ValueError(f"{path}: fold and configuration choose among nnU-Net models; expected a folder with plans.json")
    if path.is_file() and path.suffix == ".pt2":
        if arch not in (None, "graph"):
            raise ValueError(f"{path}: a torch.export file holds its own graph; expected no arch, got {arch!r}")
        unknown = sorted(set(arguments) - {"output", "outputs", "resize_logits"})
        if unknown:
            raise ValueError(f"{path}: expected the arguments output and resize_logits, got {', '.join(unknown)}")
        from converters.exported import convert_exported

        _check_part(path, part)
        return convert_exported(path, **arguments)
    if path.is_file():
        from converters.convert import convert

        return convert(path, arch=arch, arguments=arguments, part=part)
    _check_part(path, part)
    inside = sorted(plans.parent.name for plans in path.glob("*/plans.json"))
    if inside:
        raise ValueError(f"{path}: holds the nnU-Net folders {', '.join(inside)}; expected one of them")
    if not is_model_folder(path):
        raise ValueError(
            f"{path}: expected a model folder (manifest.json and weights/), an nnU-Net folder (plans.json "
            "and fold_*/), a bundle of MONAI (configs/metadata.json) or a weight file, got "
            f"{'another folder' if path.is_dir() else 'something else'}"
        )
    return _check(path, restore_model(path), arch=arch, arguments=arguments)


def from_torch(
    module: Any,
    example: Any = None,
    *,
    dynamic: bool | str = True,
    output: str | int | None = None,
    resize_logits: bool = True,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    outputs: str | None = None,
) -> SegmentationModel:
    """A PyTorch network in memory as a model that needs PyTorch no more: exported as a graph, and proven on the example.

    Args:
        module: A `torch.nn.Module` of any package (MONAI, segmentation_models_pytorch, torchvision, your own), which stays as it
            is, or a `torch.export.ExportedProgram`, which has its example in it.
        example: An image batch `[b i *space]` that the module takes, channels first as PyTorch has them; a MetaTensor will do.
            Images, logits and maps of the model have channels last.
        dynamic: Whether batch and sides stay free where the module allows it; `"batch"`: only the batch (window attention, with
            which PyTorch takes very long); False: nothing.
        output: The logits where the module returns several values: name or number. Without it `out`, `logits` or the first of
            full resolution.
        resize_logits: Resize logits that are smaller than the image by a whole factor, as SegFormer's, linearly.
        preprocessing: How images are prepared from what files hold, as a mapping of the fields of `Preprocessing`; by default
            each is brought to mean 0 and standard deviation 1.
        class_names: Names of the classes, or of independent channels.
        outputs: What output channels mean: `softmax` or `sigmoid`; by default what the end of the graph says, else softmax, of
            one channel sigmoid. A softmax or sigmoid at the end is taken off.

    Returns:
        The model. What was decided for the caller stands in its `manifest["notes"]`; `save_model` writes it to a folder.

    Raises:
        ValueError: With one line, without PyTorch, for a module that cannot be exported, operations that are not supported (all
            of them, with their places), outputs that are no logits, and logits that differ from the module's by more than 1e-4
            of their range.
    """
    from converters.exported import from_torch as convert_module

    return convert_module(
        module,
        example,
        dynamic=dynamic,
        output=output,
        resize_logits=resize_logits,
        preprocessing=preprocessing,
        class_names=class_names,
        outputs=outputs,
    )


def _in_memory(network: Any, **arguments: Any) -> SegmentationModel:
    """A network of PyTorch or JAX that somebody holds; ValueError for what is none."""
    if any(base.__module__.split(".")[0] == "torch" for base in type(network).__mro__):
        return from_torch(network, **arguments)
    if "example" not in arguments:
        raise ValueError(
            f"load_model: expected a path, or a network in memory with an example image batch (example=...), got "
            f"{type(network).__name__} alone"
        )
    return wrap(network, **arguments)


def _is_bundle(path: Path) -> bool:
    """Whether a path is the folder of a bundle of MONAI, which must have this file."""
    return (path / "configs" / "metadata.json").is_file()


def _is_nnunet(path: Path) -> bool:
    """Whether this is a model folder of nnU-Net, or what is left of one, or a checkpoint in one of its folds."""
    if path.is_dir():
        return any((path / name).is_file() for name in ("plans.json", "dataset.json")) or any(path.glob("fold_*/*.pth"))
    return path.parent.name.startswith("fold_") and (path.parent.parent / "plans.json").is_file()


def _whole_and_fold(path: Path) -> tuple[Path, str | None]:
    """The nnU-Net folder of a path, and the fold where the path is one."""
    if path.is_dir() and path.name.startswith("fold_") and (path.parent / "plans.json").is_file():
        return path.parent, path.name.removeprefix("fold_")
    return path, None


def load_models(
    path: str | Path, arch: str | None = None, *, folds: Sequence[str] = (), **arguments: Any
) -> list[SegmentationModel]:
    """The models of a place that belong together: every fold of an nnU-Net folder, or some `folds`, or the one model there is.

    Arguments and errors are those of `load_model`.
    """
    whole, own = _whole_and_fold(Path(path))
    if whole.is_dir() and _is_nnunet(whole) and arch is None and not arguments:
        from converters.nnunet import read_nnunet

        return read_nnunet(whole, folds=list(folds) or (None if own is None else [own]))
    if folds:
        raise ValueError(
            f"{path}: folds are those of an nnU-Net folder (plans.json and fold_*/); expected none, got {', '.join(folds)}"
        )
    return [load_model(path, arch=arch, **arguments)]


def _check_part(path: Path, part: str | None) -> None:
    if part is not None:
        raise ValueError(f"{path}: a part is chosen among those of a weight file; expected no part, got {part!r}")


def _load_nnunet(path: Path, *, fold: int | str | None, configuration: str | None) -> SegmentationModel:
    from converters.nnunet import list_folds, read_nnunet

    if path.is_file():
        own = path.parent.name.removeprefix("fold_")
        if fold is not None and str(fold) != own:
            raise ValueError(f"{path}: expected fold {own}, to which the file belongs, got fold={fold}")
        return read_nnunet(path.parent.parent, configuration=configuration, checkpoint=path.name, folds=[own])[0]
    folds = list_folds(path)
    if fold is None and len(folds) > 1:
        raise ValueError(f"{path}: holds the folds {', '.join(folds)}; expected a choice of one (fold=...), got none")
    return read_nnunet(path, configuration=configuration, folds=folds if fold is None else [str(fold)])[0]


def _check(path: Path, model: SegmentationModel, *, arch: str | None, arguments: dict[str, Any]) -> SegmentationModel:
    if arch not in (None, model.network.architecture):
        raise ValueError(f"{path}: expected a checkpoint of {arch}, got one of {model.network.architecture}")
    if arguments:
        own = dict(model.network.arguments)
        asked = dict(Network.create(model.network.architecture, **{**own, **arguments}).arguments)
        others = [f"{name}={asked[name]!r} (the checkpoint has {own[name]!r})" for name in own if asked[name] != own[name]]
        if others:
            raise ValueError(f"{path}: arguments contradict the checkpoint: {', '.join(others)}")
    return model
