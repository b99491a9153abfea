"""Any model that can be read, as a model folder, with settings that the file lacks and its numbers checked; and the way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..data.preprocess import Preprocessing
from .folder import save_model
from .loading import load_model
from .model import SegmentationModel
from .outputs import Regions, declare_outputs, describe_outputs


@dataclass(frozen=True)
class ConvertRequest:
    """A model to read, and where to save it.

    `arch`, `arguments`, `fold`, `configuration` and `part` are those of `load_model`, `output` that of `from_torch`.
    `preprocessing` (settings of Preprocessing), `class_names`, and `outputs` with its `regions` (see outputs.py) replace what the
    source says. `verify` is an .npz with `input` and `logits` [b c *space] of the original network.
    """

    source: Path
    out: Path
    arch: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] | None = None
    class_names: tuple[str, ...] | None = None
    outputs: str | None = None
    regions: Regions | None = None
    fold: str | None = None
    configuration: str | None = None
    part: str | None = None
    output: str | None = None
    verify: Path | None = None


class Converted(NamedTuple):
    """The model as saved, and how it compares with the original where that is known.

    `parity` are the figures of the comparison (converters.parity), `reference` says with what, and `differs` whether the logits
    are not those of the reference that was asked for.
    """

    model: SegmentationModel
    parity: dict[str, Any] | None = None
    reference: str = ""
    differs: bool = False

    @property
    def notes(self) -> list[str]:
        """What a person should know of how the file was understood."""
        said = describe_outputs(self.model)
        return [*self.model.manifest.get("notes", ()), *([said] if said else [])]


def convert_model(request: ConvertRequest) -> Converted:
    """Read, map, check and save a model.

    A model whose logits differ from the reference is saved all the same, with the figures in its manifest. ValueError, before
    anything is written, for what `load_model` refuses, settings that do not fit, and no reference where one was named.
    """
    arguments = dict(request.arguments)
    if request.source.suffix == ".pt2":
        arguments |= {n: said for n in ("output", "outputs") if (said := getattr(request, n)) is not None}
    elif request.output is not None:
        raise ValueError(
            f"{request.source}: an output is chosen among those of a graph (.pt2); expected none, got {request.output!r}"
        )
    chosen = {"fold": request.fold, "configuration": request.configuration, "part": request.part}
    model = load_model(request.source, request.arch, **chosen, **arguments)
    if request.preprocessing is not None:
        settings = {"channels": model.network.in_channels, **request.preprocessing}
        model.manifest["preprocessing"] = Preprocessing.from_dict(settings).to_dict()
    if (request.outputs, request.regions, request.class_names) != (None, None, None):
        model = _declare(model, request)
    result = Converted(model)
    if request.verify is not None:
        from converters.parity import check_parity, record_parity

        if not request.verify.is_file():
            raise ValueError(f"--verify {request.verify}: expected an NPZ file with input and logits, got nothing there")
        parity = check_parity(model, reference=request.verify)
        result = Converted(record_parity(model, parity), parity, request.verify.name, parity["verdict"] != "equal")
    elif (live := model.manifest.get("parity", {})).get("kind") == "live PyTorch":  # reading a graph checks it
        result = Converted(model, live, "the graph in PyTorch")
    save_model(request.out, result.model)
    return result


def _declare(model: SegmentationModel, request: ConvertRequest) -> SegmentationModel:
    said = model.manifest.get("outputs", {})
    if "nnunet" in model.manifest:
        raise ValueError(
            f"{request.source}: dataset.json says what its channels mean; expected no outputs, regions or class names"
        )
    if request.outputs == "sigmoid" and said.get("inside") == "softmax":
        raise ValueError(f"{request.source}: its graph ends in a softmax; expected no --outputs sigmoid")
    meaning = request.outputs or (None if request.regions is not None else said.get("meaning"))
    names: Sequence[str] | None = request.class_names
    if names is None and request.regions is None and meaning == said.get("meaning") == "sigmoid":
        names = [name for _, name in sorted(zip(said["channels"], said["regions"], strict=True))]  # as they were read
    try:
        return declare_outputs(model, meaning, regions=request.regions, names=names, inside=said.get("inside", ""))
    except ValueError as error:
        raise ValueError(f"{request.source}: {error}") from error


def export_model(model: Path, out: Path) -> None:
    """Write a model's weights as a PyTorch (.pth) or safetensors file, with their original names."""
    from converters.export import export_weights

    export_weights(load_model(model), out)
