"""A PyTorch module, or a file of `torch.export.save`, to a `SegmentationModel` whose logits are shown to be equal."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.outputs import declare_outputs
from quam_jax.networks.graph.program import SPACE, Node, Ref, parse
from quam_jax.networks.graph.run import Blank, abstract_sizes
from quam_jax.networks.graph.values import Stored, stored_order

from ..convert import sha256
from ..mapping import pack, to_flax
from ..parity import TOLERANCE
from .archive import load_exported
from .capture import (
    choose_output,
    export_module,
    first_line,
    import_torch,
    in_eval_mode,
    known_operations,
    one_line,
    select_output,
)
from .cuts import find_cuts
from .ends import check_coarse, find_end, has_background, missing_axes, names_with_background, sides_text
from .prove import Original, prove
from .sizes import find_multiples, fix_sizes, free_sizes
from .write import IMAGE, Written, first_names, layouts, lines, write_graph

RESIZE = {2: "upsample_bilinear2d.vec", 3: "upsample_trilinear3d.vec"}
HALF = 2e-2  # difference of a half-precision graph from its own numbers in float32, in parts of their range


def from_torch(
    module: Any,
    example_input: Any = None,
    *,
    dynamic: bool | str = True,
    output: str | int | None = None,
    resize_logits: bool = True,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    outputs: str | None = None,
) -> SegmentationModel:
    """The model of any PyTorch module that `torch.export` can write down, proven on the example.

    `module` may be a `torch.export.ExportedProgram` too, which has an example itself.
    `example_input` `[b i *space]` is an image batch that the module takes; batch and sides stay free where the module
    allows, only the batch with `dynamic="batch"` (for window attention, with which PyTorch takes very long), nothing with
    `dynamic=False`. `output` picks the logits where the module returns several values (see `choose_output`). Logits of
    another size than the image, as SegFormer's, are resized to it linearly (without aligned corners), which
    `resize_logits=False` leaves out. A softmax or sigmoid at the end is taken off, and `notes` in the manifest say so
    (see `ends`); `outputs` says what the channels mean (see `quam_jax.models.outputs`). The model computes in eval mode
    only. Raises ValueError on a module that cannot be exported, on operations that are not supported (all of them, with
    their places), on outputs that are no logits, and if the logits differ from the module's by more than 1e-4 of their
    range.
    """
    torch = import_torch()
    meaning = {
        "output": output,
        "resize_logits": resize_logits,
        "preprocessing": preprocessing,
        "class_names": class_names,
        "outputs": outputs,
    }
    name = type(module).__name__
    if isinstance(module, torch.export.ExportedProgram):
        return _from_program(module, name, {"file": None, "module": name}, **meaning)
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"module: expected a torch.nn.Module or an exported program, got {name}")
    if example_input is None:
        raise ValueError(f"{name}: expected an example, an image batch [b i *space] that the module takes, got none")
    example = torch.as_tensor(example_input)
    example = getattr(example, "as_tensor", lambda: example)()  # a MetaTensor of MONAI without its affine
    _check_example(example, name)
    parameter = next(module.parameters(), torch.zeros(()))
    example = example.detach().to(parameter.device, parameter.dtype)
    source = {"file": None, "module": f"{type(module).__module__}.{type(module).__qualname__}"}

    def run(images: np.ndarray) -> Any:
        with in_eval_mode(module), torch.no_grad():
            return module(torch.as_tensor(images).to(parameter.device, parameter.dtype))

    with one_line(name):
        return _assemble(
            known_operations(export_module(module, example, dynamic=dynamic)),
            np.asarray(example.float().cpu()),
            Original(run, tolerance=_tolerance(parameter)),
            name=name,
            source=source,
            **meaning,
        )


def convert_exported(
    path: str | Path,
    *,
    output: str | int | None = None,
    resize_logits: bool = True,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    outputs: str | None = None,
) -> SegmentationModel:
    """The model of a file that `torch.export.save` wrote, proven on the example input in it; see `from_torch`.

    Sizes are free as they were exported. Raises ValueError on a file that cannot be read, too.
    """
    path = Path(path)
    return _from_program(
        load_exported(path),
        str(path),
        {"file": path.name, "sha256": sha256(path)},
        output=output,
        resize_logits=resize_logits,
        preprocessing=preprocessing,
        class_names=class_names,
        outputs=outputs,
    )


def _from_program(exported: Any, name: str, source: dict[str, Any], **meaning: Any) -> SegmentationModel:
    with one_line(name):
        example = _stored_example(exported, name)
        _check_example(example, name)
        return _assemble(
            known_operations(exported),
            np.asarray(example.float()),
            _original(exported, example),
            name=name,
            source=source,
            **meaning,
        )


def _original(exported: Any, example: Any) -> Original:
    """What a file's graph gives, in float32 where it can: a half-precision one is only as exact as its own rounding."""
    torch = import_torch()

    def runs(module: Any, dtype: Any) -> Any:
        def run(images: np.ndarray) -> Any:
            with torch.no_grad():
                return module(torch.as_tensor(images).to(dtype))

        return run

    if example.dtype in (torch.float16, torch.bfloat16):
        exact = runs(exported.module().float(), torch.float32)
        try:
            exact(np.asarray(example.float()))
        except Exception:  # its types are written into the graph
            return Original(runs(exported.module(), example.dtype), tolerance=HALF)
        return Original(exact)
    return Original(runs(exported.module(), example.dtype))


def _tolerance(parameter: Any) -> float:
    torch = import_torch()
    return HALF if parameter.dtype in (torch.float16, torch.bfloat16) else TOLERANCE


def _stored_example(exported: Any, name: str) -> Any:
    args, kwargs = exported.example_inputs or ((), {})
    values = [*args, *kwargs.values()]
    if len(values) != 1:
        raise ValueError(f"{name}: expected an export of one example input, got {len(values)}")
    return values[0].detach().cpu()


def _check_example(example: Any, name: str) -> None:
    if example.ndim not in (4, 5) or not example.is_floating_point():
        raise ValueError(
            f"{name}: expected an example input [b i h w] or [b i d h w] of floating point, "
            f"got {str(example.dtype).removeprefix('torch.')} of shape {list(example.shape)}"
            + ("; add the axis of the batch: example[None]" if example.ndim == 3 else "")
        )


def _assemble(
    program: Any,
    example: np.ndarray,
    original: Original,
    *,
    name: str,
    source: dict[str, Any],
    output: str | int | None,
    resize_logits: bool,
    preprocessing: Mapping[str, Any] | None,
    class_names: Sequence[str] | None,
    outputs: str | None,
) -> SegmentationModel:
    torch = import_torch()
    try:
        returned = original.run(example)
    except Exception as error:  # the graph is PyTorch's, and may fail in its own ways
        raise ValueError(f"{name}: PyTorch cannot run it on its own example: {first_line(error)}") from error
    try:
        output, note = choose_output(returned, output, example.shape[2:])
        values = select_output(returned, output)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    notes = [note]
    written = write_graph(program, output=output, name=name)
    axes = missing_axes(tuple(values.shape), example.shape, name=name)
    try:
        sizes, checks = free_sizes(program)
        found = _as_array(values, axes)
        end = find_end(written, found)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    notes.append(end.note)
    written = written._replace(nodes=end.nodes, output=end.output)
    for axis in axes:
        written = _add(written, Node("logits_of_one_channel", "unsqueeze", (Ref(written.output), axis), {}, ""))
    # what was exported with a batch of one was tried with two
    shape = tuple(n if isinstance(d, int) else max(n, 2) if d == "b" else n for d, n in zip(sizes, example.shape, strict=True))
    every = {**written.weights, **written.statistics}
    layout = layouts(written.nodes, {n: v.shape for n, v in every.items()})
    abstract = {n: Stored(jnp.zeros(_stored_shape(v, layout[n])), layout[n]) for n, v in every.items()}
    text = lines(written.nodes, sizes=sizes, checks=checks, output=written.output)
    logits = _shape_of_logits(text, abstract, shape, name=name)
    resized = resize_logits and logits[2:] != shape[2:]
    if resized:
        check_coarse(logits[2:], shape[2:], name=name)
        written = _resize(written, len(shape) - 2)
        notes.append(
            f"the logits have the sides {sides_text(logits[2:])} for images of {sides_text(shape[2:])}: they are resized linearly"
        )
    body = {"nodes": written.nodes, "output": written.output}
    multiples, fixed = find_multiples(lines(**body, sizes=sizes, checks=checks), abstract, shape)
    if any(fixed):
        taken = sides_text([n if f else "any" for n, f in zip(shape[2:], fixed, strict=True)])
        notes.append(
            f"the graph takes images of {taken} alone, as it was exported; for free sides export with dynamic_shapes, and an "
            "example whose sides are multiples of the network's strides"
        )
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
    aliases = {n: first for n, first in first_names(program).items() if first != n and first in every}
    manifest = {
        "source": {
            **source,
            "wrapper": f"torch.export {torch.__version__}",
            "prefix": "",
            "dtype": ", ".join(sorted({v.dtype.name for v in every.values()})),
        },
        "preprocessing": {"channels": network.in_channels, **(preprocessing or {"normalise": "zscore"})},
        "class_names": None,
        "resized_logits": resized,
        "dropped_aliases": aliases,
        "set_aside": {n: pack(v) for n, v in written.unused.items() if n not in aliases},
        "notes": [note for note in notes if note],
    }
    model = SegmentationModel(network, *to_flax(network, every, where=name), manifest)
    asked = replace(original, output=output, inside=end.inside)
    proven = prove(model, example, asked, fixed=fixed, axes=axes, name=name)
    meaning = outputs or ("sigmoid" if end.inside == "sigmoid" else None)
    if class_names is None and meaning == end.inside == "sigmoid" and has_background(found):
        class_names = names_with_background(found.shape[1])
        notes.append("its sigmoids sum to about 1 on the example, so the first channel is taken for the background")
        proven.manifest["notes"] = [note for note in notes if note]
    try:
        return declare_outputs(proven, meaning, names=class_names, inside=end.inside)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _as_array(values: Any, axes: Sequence[int]) -> np.ndarray:
    torch = import_torch()
    values = values.detach().cpu()
    array = np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    return np.expand_dims(array, tuple(axes))


def _add(written: Written, *nodes: Node) -> Written:
    return written._replace(nodes=[*written.nodes, *nodes], output=nodes[-1].name)


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


def _resize(written: Written, rank: int) -> Written:
    sides = [
        Node(f"image_{letter}", "sym_size", (Ref(IMAGE), axis), {}, "") for axis, letter in enumerate(SPACE[3 - rank :], start=2)
    ]
    logits = Node("logits_resized", RESIZE[rank], (Ref(written.output), [Ref(n.name) for n in sides], False), {}, "")
    return _add(written, *sides, logits)
