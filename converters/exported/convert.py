"""A PyTorch module, or a file of `torch.export.save`, to a `SegmentationModel` whose logits are shown to be equal."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from quam_jax.models.model import Network, SegmentationModel
from quam_jax.networks.graph.program import SPACE, Node, Ref, parse
from quam_jax.networks.graph.run import Blank, abstract_sizes
from quam_jax.networks.graph.values import Stored, stored_order

from ..convert import sha256
from ..mapping import pack, shorten, to_flax
from ..parity import check_parity
from .archive import load_exported
from .capture import export_module, import_torch, in_eval_mode, known_operations, select_output
from .cuts import find_cuts
from .sizes import find_multiples, fix_sizes, free_sizes
from .write import IMAGE, Written, first_names, layouts, lines, write_graph

RESIZE = {2: "upsample_bilinear2d.vec", 3: "upsample_trilinear3d.vec"}


def from_torch(
    module: Any,
    example_input: Any,
    *,
    dynamic: bool | str = True,
    output: str | int | None = None,
    resize_logits: bool = True,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> SegmentationModel:
    """The model of any PyTorch module that `torch.export` can write down, proven on the example.

    `example_input` `[b i *space]` is an image batch that the module takes; batch and sides stay free where the module
    allows, only the batch with `dynamic="batch"` (for window attention, with which PyTorch takes very long), nothing with
    `dynamic=False`. `output` picks the logits where the module returns several values (see `select_output`). Logits of
    another size than the image, as SegFormer's, are resized to it linearly (without aligned corners), which
    `resize_logits=False` leaves out. The model computes in eval mode only. Raises ValueError on a module
    that cannot be exported, on operations that are not supported (all of them, with their places), and if the logits
    differ from the module's by more than 1e-4 of their range.
    """
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    example = torch.as_tensor(example_input)
    name = type(module).__name__
    _check_example(example, name)
    parameter = next(module.parameters(), torch.zeros(()))
    example = example.detach().to(parameter.device, parameter.dtype)
    program = known_operations(export_module(module, example, dynamic=dynamic))
    source = {"file": None, "module": f"{type(module).__module__}.{type(module).__qualname__}"}

    def original(images: np.ndarray) -> Any:
        with in_eval_mode(module), torch.no_grad():
            return module(torch.as_tensor(images).to(parameter.device, parameter.dtype))

    return _assemble(
        program,
        np.asarray(example.float().cpu()),
        original,
        name=name,
        source=source,
        output=output,
        resize_logits=resize_logits,
        preprocessing=preprocessing,
        class_names=class_names,
    )


def convert_exported(
    path: str | Path,
    *,
    output: str | int | None = None,
    resize_logits: bool = True,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> SegmentationModel:
    """The model of a file that `torch.export.save` wrote, proven on the example input in it; see `from_torch`.

    Sizes are free as they were exported. Raises ValueError on a file that cannot be read, too.
    """
    torch = import_torch()
    path = Path(path)
    exported = load_exported(path)
    example = _stored_example(exported, path)
    _check_example(example, str(path))
    module = exported.module()

    def original(images: np.ndarray) -> Any:
        with torch.no_grad():
            return module(torch.as_tensor(images).to(example.dtype))

    source = {"file": path.name, "sha256": sha256(path)}
    return _assemble(
        known_operations(exported),
        np.asarray(example.float()),
        original,
        name=str(path),
        source=source,
        output=output,
        resize_logits=resize_logits,
        preprocessing=preprocessing,
        class_names=class_names,
    )


def _stored_example(exported: Any, path: Path) -> Any:
    args, kwargs = exported.example_inputs or ((), {})
    values = [*args, *kwargs.values()]
    if len(values) != 1:
        raise ValueError(f"{path}: expected an export of one example input, got {len(values)}")
    return values[0].detach().cpu()


def _check_example(example: Any, name: str) -> None:
    if example.ndim not in (4, 5) or not example.is_floating_point():
        raise ValueError(
            f"{name}: expected an example input [b i h w] or [b i d h w] of floating point, "
            f"got {str(example.dtype).removeprefix('torch.')} of shape {list(example.shape)}"
        )


def _assemble(
    program: Any,
    example: np.ndarray,
    original: Any,
    *,
    name: str,
    source: dict[str, Any],
    output: str | int | None,
    resize_logits: bool,
    preprocessing: Mapping[str, Any] | None,
    class_names: Sequence[str] | None,
) -> SegmentationModel:
    torch = import_torch()
    written = write_graph(program, output=output, name=name)
    try:
        sizes, checks = free_sizes(program)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    # what was exported with a batch of one was tried with two
    shape = tuple(n if isinstance(d, int) else max(n, 2) if d == "b" else n for d, n in zip(sizes, example.shape, strict=True))
    every = {**written.weights, **written.statistics}
    layout = layouts(written.nodes, {n: v.shape for n, v in every.items()})
    abstract = {n: Stored(jnp.zeros(_stored_shape(v, layout[n])), layout[n]) for n, v in every.items()}
    text = lines(written.nodes, sizes=sizes, checks=checks, output=written.output)
    logits = _shape_of_logits(text, abstract, shape, name=name)
    resized = resize_logits and logits[2:] != shape[2:]
    body = _resize(written, len(shape) - 2) if resized else {"nodes": written.nodes, "output": written.output}
    multiples, fixed = find_multiples(lines(**body, sizes=sizes, checks=checks), abstract, shape)
    sizes, checks = fix_sizes(sizes, checks, [n if f else None for n, f in zip(shape[2:], fixed, strict=True)])
    text = lines(**body, sizes=sizes, checks=checks)
    network = Network.create(
        "graph",
        in_channels=shape[1],
        n_classes=logits[1],
        rank=len(shape) - 2,
        program=text,
        weights=[(n, layout[n], _stored_shape(v, layout[n])) for n, v in written.weights.items()],
        statistics=[(n, layout[n], _stored_shape(v, layout[n])) for n, v in written.statistics.items()],
        size_multiple=multiples,
        cuts=find_cuts(text, abstract, shape),
    )
    if class_names is not None and len(class_names) != network.classes:
        raise ValueError(f"{name}: expected {network.classes} class names, got {len(class_names)}: {shorten(class_names)}")
    aliases = {n: first for n, first in first_names(program).items() if first != n and first in every}
    manifest = {
        "source": {
            **source,
            "wrapper": f"torch.export {torch.__version__}",
            "prefix": "",
            "dtype": ", ".join(sorted({v.dtype.name for v in every.values()})),
        },
        "preprocessing": {"channels": network.in_channels, **(preprocessing or {"normalise": "zscore"})},
        "class_names": list(class_names) if class_names is not None else None,
        "resized_logits": resized,
        "dropped_aliases": aliases,
        "set_aside": {n: pack(v) for n, v in written.unused.items() if n not in aliases},
    }
    model = SegmentationModel(network, *to_flax(network, every, where=name), manifest)
    return _prove(model, example, original, output=output, fixed=fixed, name=name)


def _stored_shape(value: np.ndarray, layout: str) -> tuple[int, ...]:
    return tuple(value.shape[axis] for axis in stored_order(layout, value.ndim))


def _shape_of_logits(
    text: tuple[str, ...], weights: Mapping[str, Stored], shape: tuple[int, ...], *, name: str
) -> tuple[int, ...]:
    program = parse(text)
    found = abstract_sizes(program, weights, Blank(shape), program.nodes)[program.output]
    if not isinstance(found, Blank) or len(found.shape) != len(shape) or found.shape[0] != shape[0]:
        raise ValueError(
            f"{name}: expected logits of {len(shape)} axes, one set an image, "
            f"got {list(found.shape) if isinstance(found, Blank) else found}"
        )
    return found.shape


def _resize(written: Written, rank: int) -> dict[str, Any]:
    sides = [
        Node(f"image_{letter}", "sym_size", (Ref(IMAGE), axis), {}, "") for axis, letter in enumerate(SPACE[3 - rank :], start=2)
    ]
    logits = Node("logits_resized", RESIZE[rank], (Ref(written.output), [Ref(n.name) for n in sides], False), {}, "")
    return {"nodes": [*written.nodes, *sides, logits], "output": logits.name}


def _prove(
    model: SegmentationModel, example: np.ndarray, original: Any, *, output: str | int | None, fixed: Sequence[int], name: str
) -> SegmentationModel:
    """Compare with the original on the example, and on another batch and other sides where they are free."""
    torch = import_torch()
    program = parse(dict(model.network.arguments)["program"])
    if np.ptp(example) == 0:  # a blank image proves little
        example = np.random.default_rng(1).standard_normal(example.shape).astype(np.float32)
    trials = [example]
    multiples = np.broadcast_to(model.network.size_multiple, model.network.rank)
    grown = [n + m * (1 - f) for n, m, f in zip(example.shape[2:], multiples, fixed, strict=True)]
    batch = 3 - min(example.shape[0], 2) if program.sizes[0] == "b" else example.shape[0]
    if grown != list(example.shape[2:]) or batch != example.shape[0]:
        noise = np.random.default_rng(0).standard_normal((batch, example.shape[1], *grown)) * (example.std() or 1.0)
        trials.append((noise + example.mean()).astype(np.float32))
    results = []
    for images in trials:
        logits = select_output(original(images), output).float()
        if model.manifest["resized_logits"]:
            logits = torch.nn.functional.interpolate(
                logits, images.shape[2:], align_corners=False, mode="bilinear" if images.ndim == 4 else "trilinear"
            )
        result = check_parity(model, reference={"input": images, "logits": np.asarray(logits.cpu())})
        results.append({**result, "kind": "live PyTorch", "shape": list(images.shape)})
        if result["verdict"] != "equal":
            raise ValueError(
                f"{name}: the imported graph differs from the network on images {list(images.shape)} by "
                f"{result['relative']:.2g} of the logit range"
            )
    return dataclasses.replace(
        model,
        manifest={
            **model.manifest,
            "parity": {
                **results[0],
                "other_sizes": results[1:],
                "fixed_sizes": [n for n, f in zip(example.shape[2:], fixed, strict=True) if f],
            },
        },
    )
