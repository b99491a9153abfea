"""From an exported PyTorch graph to lines of the interpreter's text form, and the tensors they name."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from quam_jax.networks.graph.convolution import weight_layout
from quam_jax.networks.graph.program import Node, Ref, Weight, references, write_node
from quam_jax.networks.graph.run import operation_of
from quam_jax.networks.graph.values import OPERATIONS

from .capture import IGNORED, import_torch, is_training, is_unknown, output_structure, select_output, tensors

IMAGE = "image"
LISTED = 64  # constants of up to as many entries are written out
_DROPPED = ("device", "layout", "memory_format", "pin_memory", "non_blocking")


class Written(NamedTuple):
    """A graph as nodes, with the tensors that it uses by name: parameters, statistics, and what it does not use."""

    nodes: list[Node]
    output: str
    weights: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    unused: dict[str, np.ndarray]


def write_graph(program: Any, *, output: str | int | None, name: str) -> Written:
    """The nodes that the chosen output needs; ValueError naming every operation that is not supported and its place."""
    torch = import_torch()
    held, names = tensors(program), first_names(program)
    known: dict[str, Any] = {}  # graph node -> what later nodes write for it
    constants: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    nodes: list[Node] = []
    unsupported: dict[str, str] = {}
    for spec in program.graph_signature.input_specs:
        kind, own = spec.kind.name, spec.arg.name
        if kind == "USER_INPUT":
            known[own] = Ref(IMAGE)
        elif kind in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
            value = held[spec.target]
            persistent = kind == "PARAMETER" or (kind == "BUFFER" and spec.persistent is not False)
            if persistent and value.is_floating_point() and bool(torch.isfinite(value).all()):
                target = names.get(spec.target, spec.target)
                known[own] = Weight(target)
                kinds[target] = kind
            else:
                constants[own] = value
                known[own] = Ref(own)
    for node in program.graph.nodes:
        if node.op == "get_attr":
            value = _attribute(program.graph_module, node.target)
            if isinstance(value, torch.Tensor):
                constants[node.name] = value
                known[node.name] = Ref(node.name)
        elif node.op == "call_function":
            try:
                _write_call(node, known, nodes, unsupported)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    chosen = select_output(output_structure(program), output)
    if unsupported:
        raise ValueError(
            f"{name}: {len(unsupported)} of its operations {'is' if len(unsupported) == 1 else 'are'} not "
            f"supported: {'; '.join(f'{op} ({place})' for op, place in unsupported.items())}"
        )
    final = known[chosen.name]
    first = [_constant(n, v) for n, v in constants.items()]
    kept = _needed([*first, *nodes], final.name)
    used = {r.name for n in kept for r in references([*n.args, n.kwargs]) if isinstance(r, Weight)}
    arrays = {n: _array(v) for n, v in held.items()}
    weights = {n: arrays[n] for n, kind in kinds.items() if n in used and kind == "PARAMETER"}
    statistics = {n: arrays[n] for n, kind in kinds.items() if n in used and kind == "BUFFER"}
    unused = {n: arrays[n] for n in program.state_dict if n not in weights and n not in statistics}
    return Written(kept, final.name, weights, statistics, unused)


def first_names(program: Any) -> dict[str, str]:
    """For every name in the module's state_dict the first one of the same tensor; the exporter may use any."""
    seen: dict[Any, str] = {}
    return {
        name: seen.setdefault((value.data_ptr(), value.shape, value.stride()) if value.numel() else name, name)
        for name, value in program.state_dict.items()
    }


def layouts(nodes: Sequence[Node], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The axis order in which every weight is best kept: that of the operation that uses it, if only one kind does."""
    uses: dict[str, set[str]] = {name: set() for name in shapes}
    for node in nodes:
        for position, value in enumerate([*node.args, *node.kwargs.values()]):
            place = position if position < len(node.args) else -1
            for part in references(value):
                if isinstance(part, Weight):
                    direct = part is value
                    uses[part.name].add(weight_layout(node.op, place if direct else -1, len(shapes[part.name])))
    return {name: next(iter(found)) if len(found) == 1 else "plain" for name, found in uses.items()}


def _write_call(node: Any, known: dict[str, Any], nodes: list[Node], unsupported: dict[str, str]) -> None:
    target = node.target
    packet = getattr(target, "_overloadpacket", None)
    where = module_path(node)
    if packet is None:
        op = f"size.{'item' if target.__name__ == 'getitem' else target.__name__}"
        if op not in OPERATIONS:
            unsupported.setdefault(str(getattr(target, "__name__", target)), _place(node, where))
            return
    elif packet.__name__ in IGNORED:
        return
    elif is_training(node):
        raise ValueError(
            f"it computes with batch statistics or dropout ({_place(node, where)}), as in train mode: call model.eval() before "
            "torch.export.export"
        )
    elif is_unknown(target):
        unsupported.setdefault(str(target), _place(node, where))
        return
    elif _follows_unsupported(node, known):
        return
    elif packet.__name__ == "_native_batch_norm_legit_no_training":
        x, weight, bias, mean, var, _, eps = node.args
        nodes.append(
            Node(
                node.name,
                "batch_norm_inference",
                tuple(_argument(a, known) for a in (x, weight, bias, mean, var)) + (eps,),
                {},
                where,
            )
        )
        known[node.name] = Ref(node.name)
        return
    else:
        op = operation_of(packet.__name__, target._overloadname) or ""
    if _follows_unsupported(node, known):
        return
    if op == "size.item" and getattr(node.args[0].target, "__name__", "").startswith("_native_batch_norm_legit_no_training"):
        known[node.name] = known[node.args[0].name]
        return
    args = tuple(_argument(a, known) for a in node.args)
    kwargs = {k: _argument(v, known) for k, v in node.kwargs.items() if k not in _DROPPED}
    nodes.append(Node(node.name, op, args, kwargs, where))
    known[node.name] = Ref(node.name)


def _follows_unsupported(node: Any, known: Mapping[str, Any]) -> bool:
    return any(isinstance(n, type(node)) and n.name not in known for n in node.all_input_nodes)


def module_path(node: Any) -> str:
    """The path of the module that a node came from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].") if stack else ""


def _place(node: Any, where: str) -> str:
    return f"node {node.name}" + (f" in {where}" if where else "")


def _argument(value: Any, known: Mapping[str, Any]) -> Any:
    torch = import_torch()
    if isinstance(value, torch.fx.Node):
        return known[value.name]
    if isinstance(value, list | tuple):
        return [_argument(v, known) for v in value]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return None  # devices and memory formats


def _attribute(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part)
    return module


def _array(value: Any) -> np.ndarray:
    torch = import_torch()
    value = value.detach().cpu()
    return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()


def _constant(name: str, value: Any) -> Node:
    array = np.ascontiguousarray(_array(value))
    entries = (
        array.ravel().tolist() if array.size <= LISTED else base64.b64encode(zlib.compress(array.tobytes(), 9)).decode("ascii")
    )
    return Node(name, "tensor", (array.dtype.name, list(array.shape), entries), {}, "")


def _needed(nodes: Sequence[Node], output: str) -> list[Node]:
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if node.name in wanted:
            kept.append(node)
            wanted.update(r.name for r in references([*node.args, node.kwargs]) if isinstance(r, Ref))
    return kept[::-1]


def lines(nodes: Sequence[Node], *, sizes: Sequence[int | str], checks: Sequence[str], output: str) -> tuple[str, ...]:
    """The text form of a graph."""
    return (
        write_node(Node(IMAGE, "input", tuple(sizes), {}, "")),
        *(f"check({c})" for c in checks),
        *map(write_node, nodes),
        f"return {output}",
    )
